"""A run's folder: one run at a time, what made it, what differs when it is resumed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from distillkit import api, atomic
from distillkit.errors import UserError
from distillkit.recipe.schema import RunConfig
from distillkit.runs.folder import RunFolder
from distillkit.training.callbacks import Callback
from tests.distillkit.world import world_recipe

pytestmark = pytest.mark.usefixtures("examples_installed")


class Messages(Callback):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)


def short(**run: Any) -> Any:
    run = {"batch": 2, "checkpoint_every": 1, "previews": 1, "threads": 1} | run
    return world_recipe(
        refinement={"type": "bottom-up", "stages": {1: 2}}, metrics=None, run=RunConfig(**run)
    )


def test_a_folder_is_held_by_one_process_and_entered_again_by_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked(), RunFolder(tmp_path / "x" / ".." / "run").locked():
        pid = os.fork()
        if pid == 0:  # another process, with a lock of its own
            from filelock import FileLock, Timeout

            try:
                FileLock(folder.path / ".lock").acquire(timeout=0)
            except Timeout:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    with folder.locked():
        pass


def test_a_run_holds_its_folder_until_its_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []

    def lock_of(folder: RunFolder) -> None:
        from filelock import FileLock, Timeout

        try:
            with FileLock(folder.path / ".lock", timeout=0):
                held.append("free")
        except Timeout:
            held.append("held")

    for name in ("build_parts", "evaluate", "write_report"):
        real = getattr(api, name)

        def watched(*args: Any, real: Any = real) -> Any:
            lock_of(RunFolder(tmp_path / "run"))
            return real(*args)

        monkeypatch.setattr(api, name, watched)
    api.train(short(), tmp_path / "run")
    assert held == ["held"] * 3


def test_a_resumed_run_says_what_changed_since_it_began(tmp_path: Path) -> None:
    told = Messages()
    run = api.train(short(), tmp_path / "run", callback=told)
    api.train(short(), tmp_path / "run", resume=True, callback=told)
    assert not [text for text in told.texts if text.startswith("Changed")]
    about = json.loads((run.path / "run.json").read_text())
    about["versions"]["torch"] = "1.0"
    about["plugins"]["nitrofusion"] = "distillkit 0.0.1"
    about["plugins"]["gone"] = "distillkit-gone 3.0"
    (run.path / "run.json").write_text(json.dumps(about))
    api.train(short(), tmp_path / "run", resume=True, callback=told)
    [text] = [text for text in told.texts if text.startswith("Changed")]
    assert "gone distillkit-gone 3.0 -> absent" in text
    assert "nitrofusion distillkit 0.0.1 -> distillkit " in text
    assert "torch 1.0 -> " in text
    assert text.count("->") == 3


def test_what_a_killed_run_left_is_removed_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the run's folder and in its cache, where other processes' parts stay."""
    recipe = short().model_copy(update={"samples": world_recipe().samples})
    samples = {"count": 4, "cache": str(tmp_path / "cache")}
    recipe = recipe.model_copy(update={"samples": recipe.samples.model_copy(update=samples)})
    run = api.train(recipe, tmp_path / "run")
    torn = run.checkpoints / f".00000003.{atomic._host()}.4194305.part"  # no such process
    torn.mkdir()
    (torn / "student.safetensors").write_bytes(bytes(2_500_000))
    shard = tmp_path / "cache" / f".samples-0.safetensors.{atomic._host()}.4194305.part"
    shard.write_bytes(bytes(1_200_000))
    alive = tmp_path / "cache" / f".samples-1.safetensors.{atomic._host()}.{os.getppid()}.part"
    alive.write_bytes(b"x")
    told = Messages()
    api.train(recipe, tmp_path / "run", resume=True, callback=told)
    assert "Removed 2.5 MB of unfinished files" in told.texts
    assert "Removed 1.2 MB of unfinished files in the samples' cache" in told.texts
    assert (torn.exists(), shard.exists(), alive.exists()) == (False, False, True)


def test_phases_are_in_the_order_of_the_log(tmp_path: Path) -> None:
    run = api.train(short(), tmp_path / "run")
    assert run.phase_ends() == {"1-step": 2}
    assert RunFolder(tmp_path / "none").phase_ends() == {}


def test_a_damaged_run_json_stops_nothing(tmp_path: Path) -> None:
    run = api.train(short(), tmp_path / "run")
    for text in ("", "[1]", "{"):
        (run.path / "run.json").write_text(text)
        told = Messages()
        api.train(short(), tmp_path / "run", resume=True, callback=told)
        assert any("torch absent -> " in each for each in told.texts)


def test_a_folder_that_can_not_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"Could not write to .*file/run: Not a dir"),
        RunFolder(tmp_path / "file/run").locked(),
    ):
        pass

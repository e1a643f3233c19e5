"""Checkpoints: whole or not there, checked when they are read, the newest few kept."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import UserError
from distillkit.recipe.schema import RunConfig
from distillkit.runs import checkpoint
from distillkit.training.callbacks import Callback, Stopped
from tests.distillkit.world import StopAfter, assert_same, everything, trainer, world_recipe


class Messages(Callback):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)

    def on_resume(self, iteration: int) -> None:
        self.texts.append(f"resumed from {iteration}")


def test_a_damaged_checkpoint_is_passed_over_with_a_message(tmp_path: Path) -> None:
    recipe = world_recipe(run=RunConfig(batch=4, checkpoint_every=5, keep_checkpoints=2))
    whole = trainer(recipe, tmp_path)
    whole.train()
    assert whole.checkpoints.iterations() == [15, 20]
    victim = tmp_path / "checkpoints" / "00000020" / "heads.safetensors"
    victim.write_bytes(victim.read_bytes()[:-7] + b"garbage")
    told = Messages()
    again = trainer(recipe, tmp_path, told)
    again.train(resume=True)
    damaged, resumed = told.texts[-2:]
    assert "heads.safetensors does not match its checksum" in damaged
    assert resumed == "resumed from 15"
    assert_same(everything(whole), everything(again))


def test_a_damaged_checkpoint_does_not_outlive_the_one_that_follows_it(tmp_path: Path) -> None:
    """20 is damaged, and the run that goes on from 15 is stopped at 17: 17 is what it saves."""
    recipe = world_recipe(run=RunConfig(batch=4, checkpoint_every=5, keep_checkpoints=1))
    run = recipe.run.model_copy(update={"keep_checkpoints": 2})
    whole = trainer(recipe.model_copy(update={"run": run}), tmp_path)
    whole.train()
    (tmp_path / "checkpoints" / "00000020" / "manifest.json").unlink()
    broken = trainer(recipe, tmp_path, StopAfter(17, signal.SIGTERM))
    with pytest.raises(Stopped, match="after iteration 17"):
        broken.train(resume=True)
    assert broken.checkpoints.iterations() == [17]
    again = trainer(recipe, tmp_path)
    again.train(resume=True)
    assert_same(everything(whole), everything(again))


def test_a_checkpoint_that_was_cut_short_is_never_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of a checkpoint leaves the one before, and a sentence."""
    run = trainer(world_recipe(run=RunConfig(batch=4, checkpoint_every=5)), tmp_path)
    real, calls = checkpoint.write_tensors, []

    def full_disk(path: Path, tensors: Any) -> None:
        calls.append(path)
        if len(calls) > 6:
            raise OSError(28, "No space left on device")
        real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full_disk)
    with pytest.raises(UserError, match="No space left on device"):
        run.train()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000005"]


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (lambda f: (f / "manifest.json").unlink(), "manifest.json can't be read"),
        (lambda f: (f / "manifest.json").write_text("{"), "manifest.json can't be read"),
        (lambda f: (f / "heads.safetensors").unlink(), "heads.safetensors is missing"),
    ],
)
def test_what_is_wrong_with_a_checkpoint_is_named(tmp_path: Path, harm: Any, fault: str) -> None:
    folder = checkpoint.Checkpoints(tmp_path, keep=1).save(5, {"heads": {}})
    assert checkpoint.find_fault(folder) is None
    harm(folder)
    assert fault in str(checkpoint.find_fault(folder))

"""`distillkit run` on the examples: what it prints, how it stops and resumes; then `export`."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

import distillkit
from distillkit.cli.terminal.progress import ProgressCallback
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.recipe.load import dump_recipe, load_recipe
from distillkit.recipe.schema import RunConfig
from tests.distillkit.launch import command
from tests.distillkit.world import world_recipe

pytestmark = pytest.mark.usefixtures("examples_installed")


@pytest.fixture(autouse=True)
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe of six iterations in the working directory."""
    monkeypatch.chdir(tmp_path)
    made = world_recipe(
        refinement={"type": "bottom-up", "stages": {1: 4, 2: 2}},
        metrics=ExampleMetricsConfig(num_images=16),
        run=RunConfig(batch=2, checkpoint_every=2, previews=2),
    )
    Path("mine.yaml").write_text("# Mine.\n" + dump_recipe(made))
    return "mine.yaml"


def test_a_run_prints_where_it_is_how_it_goes_and_what_came_out(recipe: str, capsys: Any) -> None:
    assert command("run", recipe, "--out", "here", "--set", "run.seed=2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["Recipe  mine.yaml", "Run     here"]
    parts = [line for line in lines if line.startswith("Parts   ")]
    version = distillkit.__version__
    nitro = "pool dynamic, refresh random, loss hinge, refinement bottom-up"
    assert f"Parts   nitrofusion (distillkit {version}): {nitro}" in parts
    assert lines[2 + len(parts)].startswith("Device  ")
    last = next(line for line in lines if line.startswith("training 6/6"))
    for words in ("2-step", "it/s", "student", "critic", "critics right", "ETA 0:00"):
        assert words in last
    assert any(line.startswith("evaluation 144/144") for line in lines)
    assert any(line.split()[:3] == ["student,", "4", "steps"] for line in lines)
    assert lines[-2:] == ["Student  here/student", "Report   here/report.html"]
    assert load_recipe("here/recipe.yaml").recipe.run.seed == 2


def test_a_run_that_is_stopped_says_how_to_continue_and_resumes(
    recipe: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ProgressCallback.on_iteration

    def stop(self: Any, i: int, *args: Any) -> None:
        told(self, i, *args)
        if i == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(ProgressCallback, "on_iteration", stop)
        assert command("run", recipe, "--out", "a run", "--set", "run.seed=4") == 130
    stopped = capsys.readouterr().out
    assert "Stopped; saved after iteration 3. Continue with" in stopped
    hint = stopped.splitlines()[-1]
    assert hint == "  distillkit run 'a run/recipe.yaml' --out 'a run' --resume"
    assert command(*shlex.split(hint)[1:]) == 0
    assert "Resuming from iteration 3.\n" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_in_its_evaluation_says_how_to_continue(
    recipe: str, capsys: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    told, before = ProgressCallback.on_progress, signal.getsignal(signal.SIGTERM)

    def stop(self: Any, what: str, *args: Any) -> None:
        told(self, what, *args)
        if what == "evaluation":
            os.kill(os.getpid(), number)

    # A shell that starts tests in the background lets them ignore Ctrl-C.
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(ProgressCallback, "on_progress", stop)
        assert command("run", recipe, "--out", "here") == 130
    signal.signal(signal.SIGINT, ignored)
    assert signal.getsignal(signal.SIGTERM) == before
    *_, said, hint = capsys.readouterr().out.splitlines()
    assert said == "Stopped; what was saved stays. Continue with"
    assert hint == "  distillkit run here/recipe.yaml --out here --resume"
    assert command(*shlex.split(hint)[1:]) == 0
    assert Path("here/metrics.json").is_file()


def test_a_run_that_is_stopped_before_it_begins_is_started_again(
    recipe: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("distillkit.api.prepare", stop)
    assert command("run", recipe, "--out", "here") == 130
    said = "Stopped before the run began: start it again."
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_without_a_folder_a_run_goes_under_runs_and_this_recipes_newest_is_resumed(
    recipe: str, capsys: Any
) -> None:
    """Whatever its folder is called; what another recipe began there is passed over."""
    assert command("run", recipe, "--resume") == 2
    assert capsys.readouterr().err == "There is no run of mine.yaml under runs/ to resume.\n"
    assert command("run", recipe, "--set", "run.batch=3") == 0
    [made] = Path("runs").iterdir()
    assert made.name.startswith("mine-20")
    capsys.readouterr()
    assert command("run", recipe, "--set", "run.batch=3", "--set", "run.seed=1", "--resume") == 2
    said = f"There is no run of mine.yaml under runs/ to resume; the nearest is {made}, with "
    assert capsys.readouterr().err == f"{said}run.seed: 0 -> 1.\n"
    made = made.rename("runs/called otherwise")
    shutil.copytree(made, "runs/older")
    os.utime("runs/older/recipe.yaml", (0, 0))
    for name, text in (("mine-20990101-000000", "run: {batch: 3}"), ("mine-2100", "[")):
        Path("runs", name).mkdir()
        Path("runs", name, "recipe.yaml").write_text(text)
    Path("runs/mine-2101").mkdir()
    assert command("run", recipe, "--set", "run.batch=3", "--resume") == 0
    out = capsys.readouterr().out
    assert "Run     runs/called otherwise\n" in out
    assert "Resuming from iteration 6.\n" in out


def test_two_runs_do_not_meet_in_one_folder(recipe: str, capsys: Any, tmp_path: Path) -> None:
    """The other process holds the folder as a run does, from before its recipe is written."""
    code = (
        "import sys, pathlib, distillkit.runs.folder as f\n"
        "with f.RunFolder(pathlib.Path('here')).locked():\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert command("run", recipe, "--out", "here") == 2
        assert "here is in use by another run; wait for it, stop" in capsys.readouterr().err
        assert not Path("here/recipe.yaml").exists()
        other.communicate()
    assert command("run", recipe, "--out", "here") == 0


def test_folders_that_will_not_do_are_told(recipe: str, capsys: Any) -> None:
    assert command("run", recipe, "--out", "here") == 0
    assert command("run", recipe, "--out", "here") == 2
    assert "here holds a run already: continue it with --resume" in capsys.readouterr().err
    assert command("run", recipe, "--out", "here", "--resume", "--set", "run.seed=5") == 2
    err = capsys.readouterr().err
    assert "here was started with other numbers than mine.yaml gives: run.seed: 0 -> 5. To" in err
    assert "distillkit run here/recipe.yaml --out here --resume" in err


def test_a_runs_student_is_exported(recipe: str, capsys: Any) -> None:
    assert command("run", recipe, "--out", "here", "--set", "metrics=") == 0
    capsys.readouterr()
    assert command("export", "here", "--to", "example", "--set", "dtype=float32") == 0
    written = "here/exports/student-example.safetensors"
    assert capsys.readouterr().out == f"{written}\n  2 tensors in float32; timestep shift 500\n"
    with safe_open(written, "pt") as file:
        assert file.metadata() == {"timestep_shift": "500"}
    words = ["export", "here", "--to", "example", "--snapshot", "start", "--out", "folder"]
    Path("folder").mkdir()
    assert command(*words) == 2
    assert "--out folder is a folder; name a file in it" in capsys.readouterr().err
    assert command("export", "here", "--to", "example", "--set", "dtyp=float32") == 2
    assert "no field 'dtyp'; did you mean 'dtype'?" in capsys.readouterr().err


def test_a_run_that_diverges_ends_in_a_sentence(recipe: str, capsys: Any) -> None:
    """The checkpoint of before stays; nothing is published."""
    words = ["--set", "optim.student.lr=1.0e+30", "--set", "losses=[{type: regression}]"]
    assert command("run", recipe, "--out", "here", *words) == 2
    err = capsys.readouterr().err
    assert "The student's loss is inf. Nothing was updated with it" in err
    assert "Traceback" not in err
    assert not Path("here/student").exists()

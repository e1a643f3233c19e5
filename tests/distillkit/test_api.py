"""distillkit from Python: load a recipe, train, resume, sample, without the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import distillkit
from distillkit import api
from distillkit.errors import UserError
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.recipe.load import LoadedRecipe, dump_recipe
from distillkit.recipe.schema import Recipe, RunConfig, SamplesConfig
from distillkit.runs.folder import RunFolder
from distillkit.training.metrics import StepMetrics
from tests.distillkit.world import StopAfter, world_recipe

pytestmark = pytest.mark.usefixtures("examples_installed")


def tiny() -> Recipe:
    return world_recipe(
        refinement={"type": "bottom-up", "stages": {1: 4, 2: 2}},
        metrics=ExampleMetricsConfig(num_images=16),
        run=RunConfig(batch=2, checkpoint_every=2, preview_every=3, previews=2),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(dump_recipe(tiny()))
    return path


class Events(api.Callback):
    """Keeps what happened."""

    def __init__(self) -> None:
        self.resumed: list[int] = []
        self.iterations: list[int] = []
        self.progress: list[tuple[int, int]] = []
        self.messages: list[str] = []

    def on_resume(self, iteration: int) -> None:
        self.resumed.append(iteration)

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        assert total == 6
        self.iterations.append(i)

    def on_progress(self, what: str, done: int, total: int, note: str = "") -> None:
        self.progress.append((done, total))

    def on_message(self, text: str) -> None:
        self.messages.append(text)


def test_a_recipe_is_loaded_trained_and_sampled_from(file: Path, tmp_path: Path) -> None:
    recipe = distillkit.load_recipe(file, ["run.seed=3"])
    assert isinstance(recipe, LoadedRecipe)
    assert recipe.recipe.run.seed == 3
    events = Events()
    run = distillkit.train(recipe, tmp_path / "run", callback=events)
    assert (events.iterations, events.resumed) == (list(range(6)), [])
    # Reference, teacher, start, student and one-step-only weights at 1, 2 and 4 steps: 9 of 16.
    assert events.progress[-1] == (144, 144)
    assert events.messages[0].startswith("Device  ")
    metrics = json.loads(run.metrics.read_text())
    assert metrics["floor_distance"] == metrics["teacher"]["distance"]
    assert run.report.is_file()
    assert sorted(path.name for path in run.previews.iterdir()) == ["00000003.png", "00000006.png"]
    assert {path.name for path in run.student.iterdir()} == {"student.safetensors", "shift.txt"}
    published = load_file(run.student / "student.safetensors")
    snapshot = load_file(run.snapshot("2-step"))
    assert all(torch.equal(published[name], snapshot[name]) for name in snapshot)

    images_B3HW = distillkit.sample(run.path, "a ring", steps=2, seed=7, count=3)
    assert images_B3HW.shape == (3, 3, 8, 8)
    assert 0 <= float(images_B3HW.min()) < float(images_B3HW.max()) <= 1
    again = distillkit.sample(str(run.path), "a ring", steps=2, seed=7, count=3)
    assert torch.equal(images_B3HW, again)
    for other in (
        distillkit.sample(run.path, "a ring", steps=2, seed=8, count=3),
        distillkit.sample(run.path, "a star", steps=2, seed=7, count=3),
        distillkit.sample(run.path, "a ring", steps=1, seed=7, count=3),
        distillkit.sample(run.path, "a ring", steps=2, seed=7, count=3, snapshot="start"),
    ):
        assert not torch.equal(images_B3HW, other)


def test_a_stopped_run_is_resumed_and_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    """A recipe made in Python needs no file."""
    whole = distillkit.train(tiny(), tmp_path / "whole")
    with pytest.raises(api.Stopped, match="after iteration 3"):
        distillkit.train(tiny(), tmp_path / "broken", callback=StopAfter(3, signal.SIGINT))
    events = Events()
    resumed = distillkit.train(tiny(), tmp_path / "broken", resume=True, callback=events)
    assert (events.resumed, events.iterations) == ([3], [3, 4, 5])
    assert json.loads(resumed.metrics.read_text()) == json.loads(whole.metrics.read_text())
    last = Path("checkpoints", "00000006")
    names = sorted(file.name for file in (whole.path / last).iterdir())
    assert {"student.safetensors", "heads.safetensors", "progress.safetensors"} < set(names)
    for name in names:
        files = [run.path / last / name for run in (whole, resumed)]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_a_finished_run_is_resumed_to_the_same_metrics(tmp_path: Path) -> None:
    first = json.loads(distillkit.train(tiny(), tmp_path / "run").metrics.read_text())
    events = Events()
    again = distillkit.train(tiny(), tmp_path / "run", resume=True, callback=events)
    assert events.iterations == []
    assert json.loads(again.metrics.read_text()) == first


def test_single_iterations_write_nothing(tmp_path: Path) -> None:
    trainer = api.prepare(tiny(), tmp_path / "run")
    metrics = trainer.step(4)
    assert metrics.spec.phase == "2-step"
    assert metrics.student != 0
    assert not (tmp_path / "run").exists()


def test_folders_that_will_not_do_are_told_before_anything_is_built(
    file: Path, tmp_path: Path
) -> None:
    recipe = distillkit.load_recipe(file)
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="run holds no run to resume"):
        distillkit.train(recipe, tmp_path / "run", resume=True)
    (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(tiny()))
    with pytest.raises(UserError, match="run holds a run already: continue it with --resume"):
        distillkit.train(recipe, tmp_path / "run")
    changed = distillkit.load_recipe(file, ["run.seed=1"])
    with pytest.raises(UserError, match=r"other numbers than .*mine\.yaml gives"):
        distillkit.train(changed, tmp_path / "run", resume=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_the_command_that_resumes_a_run_can_be_pasted(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(Path("runs/it's mine"))
    said = """distillkit run 'runs/it'"'"'s mine/recipe.yaml' --out 'runs/it'"'"'s mine' --resume"""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert api.resume_command(run) == said
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert api.resume_command(run) == f"torchrun --nproc_per_node 4 -m {said}"


def other_batches(**run: int) -> Recipe:
    return tiny().model_copy(update={"run": tiny().run.model_copy(update=run)})


def test_a_run_goes_on_in_other_batches_of_as_many_pictures(tmp_path: Path) -> None:
    """2 a batch, then 1 and 1: from there its recipe says so, and the command that resumes it."""
    with pytest.raises(api.Stopped):
        distillkit.train(tiny(), tmp_path / "run", callback=StopAfter(3, signal.SIGTERM))
    events, recipe = Events(), other_batches(batch=1, accumulate=2)
    run = distillkit.train(recipe, tmp_path / "run", resume=True, callback=events)
    assert (events.resumed, events.iterations) == ([3], [3, 4, 5])
    assert distillkit.load_recipe(run.recipe).recipe == recipe
    assert run.about()["pictures"] == 2
    with pytest.raises(UserError, match=r"gives: pictures of an iteration: 2 -> 3 \(run.batch 3 x"):
        distillkit.train(other_batches(batch=3), tmp_path / "run", resume=True)


def test_other_processes_are_told_the_batches_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of 12 pictures an iteration, by one process: 4 a batch, 3 batches."""
    begun, out = other_batches(batch=4, accumulate=3), tmp_path / "run"
    RunFolder(out).create(dump_recipe(begun), {}, 1, pictures=12)
    api.check_folder(begun, out, resume=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError) as refused:
        api.check_folder(begun, out, resume=True)
    said = "pictures of an iteration: 12 -> 24 (run.batch 4 x run.accumulate 3 x 2 processes)"
    assert said in str(refused.value)
    assert str(refused.value).endswith(
        f"torchrun --nproc_per_node 2 -m distillkit run {out}/recipe.yaml --out {out} --resume "
        "--set run.batch=3 --set run.accumulate=2"
    )
    api.check_folder(other_batches(batch=3, accumulate=2), out, resume=True)
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(UserError, match="12 pictures in 5 equal parts; start 1, 2, 3, 4, 6 or 12"):
        api.check_folder(begun, out, resume=True)


def test_a_run_of_an_earlier_version_goes_on_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not say how many processes it had."""
    RunFolder(tmp_path).create(dump_recipe(tiny()), {}, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    api.check_folder(tiny(), tmp_path, resume=True)
    with pytest.raises(UserError, match=r"gives: run.batch: 2 -> 1\. To resume"):
        api.check_folder(other_batches(batch=1), tmp_path, resume=True)


def test_fields_that_change_no_number_may_change(tmp_path: Path) -> None:
    RunFolder(tmp_path).create(dump_recipe(tiny()), {}, 1)
    recipe = other_batches(keep_checkpoints=5, checkpoint_every=3).model_copy(
        update={"samples": SamplesConfig(max_gb=500.0)}
    )
    api.check_folder(recipe, tmp_path, resume=True)
    with pytest.raises(UserError, match=r"gives: run.seed: 0 -> 1\. To resume"):
        api.check_folder(other_batches(keep_checkpoints=5, seed=1), tmp_path, resume=True)


def test_what_the_recipe_will_meet_is_told_before_a_folder_is_made(tmp_path: Path) -> None:
    changed = {"prompts": {"type": "text", "path": str(tmp_path / "gone.txt")}}
    with pytest.raises(UserError, match=r"^prompts.path: there is no .*gone.txt here"):
        distillkit.train(world_recipe(**changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_importing_distillkit_and_loading_a_recipe_import_nothing_heavy() -> None:
    code = (
        "import sys, distillkit\n"
        "print({'torch', 'numpy', 'diffusers', 'pydantic'} & sys.modules.keys() or 'none')\n"
        "distillkit.hookimpl\n"
        "distillkit.load_recipe('nitro_shapes')\n"
        "print({'torch', 'numpy', 'diffusers', 'PIL'} & sys.modules.keys() or 'none')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "none\nnone\n"), done.stderr


def test_what_distillkit_offers_is_listed() -> None:
    names = {"load_recipe", "train", "sample", "hookimpl", "__version__"}
    assert names <= set(dir(distillkit))
    assert all(getattr(distillkit, name) for name in names)


def test_what_distillkit_does_not_offer_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'distillkit' has no attribute 'tarin'"):
        distillkit.tarin  # noqa: B018

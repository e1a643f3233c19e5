"""The demo's recipe, made short: the whole road through the CLI, on the real teacher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from distillkit.cli import build
from distillkit.runs.folder import read_log

pytestmark = pytest.mark.slow

SHORT = {
    "prompts.count": 64,
    "samples.count": 12,
    "samples.batch": 12,
    "teacher.steps": 3,
    "warmup.critic": 2,
    "refinement.stages": "{1: 3, 2: 2, 4: 2}",
    "run.batch": 4,
    "run.threads": 1,
    "run.held_out": 4,
    "run.checkpoint_every": 5,
    "run.preview_every": 5,
    "metrics.num_images": 8,
}
ROWS = {"teacher", "start", "student_1", "student_2", "student_4"}
ROWS |= {"student_1_only", "student_1_only_2", "student_1_only_4"}
METRICS = {
    "caption_accuracy",
    "frechet_teacher",
    "frechet_true",
    "kid_teacher",
    "sharpness_ratio",
    "told_apart",
    "spectrum_distance",
    "diversity_ratio",
    "extra_objects",
    "captions_pair",
    "num_images",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    short = SHORT | {"samples.cache": folder / "cache"}
    flags = [word for key, value in short.items() for word in ("--set", f"{key}={value}")]
    command = ["run", "recipes/nitro_shapes.yaml", "--out", str(folder / "run"), *flags]
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 0, done.output
    assert "student, 4 steps" in done.output
    assert str(folder / "run" / "report.html") in done.output.replace("\n", "")
    return folder / "run"


def test_metrics_have_every_row_and_every_column(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.keys() >= ROWS | {"floor_frechet_teacher"}
    for row in ROWS:
        assert metrics[row].keys() >= METRICS
        assert metrics[row]["num_images"] == 8
    assert metrics["floor_frechet_teacher"] == metrics["teacher"]["frechet_teacher"]


def test_a_kernel_distance_is_judged_by_nearness_to_the_teachers_own(run: Path) -> None:
    """Its estimate for the teacher itself lies below zero: the least value is not the best."""
    info = json.loads((run / "metrics.json").read_text())["info"]
    assert {name: entry["better"] for name, entry in info.items()} == {
        "caption_accuracy": "higher",
        "frechet_teacher": "lower",
        "frechet_true": "lower",
        "kid_teacher": "teacher",
        "sharpness_ratio": "teacher",
        "told_apart": "lower",
        "spectrum_distance": "lower",
        "diversity_ratio": "teacher",
        "extra_objects": "lower",
        **{f"captions_{kind}": "higher" for kind in ("one", "two", "three", "pair")},
    }
    assert next(name for name, entry in info.items() if entry["floor"]) == "frechet_teacher"


def test_run_folder_holds_what_it_should(run: Path) -> None:
    for name in ("recipe.yaml", "run.json", "report.html", "grids/compare.png"):
        assert (run / name).stat().st_size > 0, name
    assert {p.stem for p in (run / "snapshots").iterdir()} == {
        "start",
        "1-step",
        "2-step",
        "4-step",
    }
    assert [p.name for p in (run / "previews").iterdir()]
    rows = read_log(run / "log.jsonl")
    assert [r["iteration"] for r in rows] == list(range(9))
    names = ["critic warm-up", "1-step", "2-step", "4-step"]
    assert list(dict.fromkeys(r["phase"] for r in rows)) == names
    judged = {view.rsplit(" ", 1)[0] for r in rows for view in r["accuracy"]}
    views = ("global-cond", "local-cond", "local-uncond")
    critics = ("one-step", "two-steps", "four-steps")
    assert judged == {f"{critic}: {view}" for critic in critics for view in views}


def test_student_is_a_diffusers_folder_with_the_averaged_weights(run: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(run / "student", dtype=torch.float32)
    snapshot = load_file(run / "snapshots" / "4-step.safetensors")
    published = dict(pipe.unet.named_parameters())
    assert snapshot.keys() == published.keys()
    assert all(torch.equal(snapshot[name], published[name]) for name in snapshot)


def test_sample_draws_from_the_run(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "ring.png"
    prompt = "a red striped ring on a sand background"
    command = ["sample", str(run), prompt, "--steps", "2", "--seed", "3", "--out", str(picture)]
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 0, done.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_finished_run_can_be_resumed_and_says_the_same(run: Path) -> None:
    before = json.loads((run / "metrics.json").read_text())
    command = ["run", str(run / "recipe.yaml"), "--out", str(run), "--resume"]
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 0, done.output
    assert json.loads((run / "metrics.json").read_text()) == before


def test_a_folder_that_holds_a_run_is_not_overwritten(run: Path) -> None:
    from distillkit.errors import UserError

    command = ["run", str(run / "recipe.yaml"), "--out", str(run)]
    done = CliRunner().invoke(build(), command)
    assert isinstance(done.exception, UserError)
    assert "holds a run already" in str(done.exception)

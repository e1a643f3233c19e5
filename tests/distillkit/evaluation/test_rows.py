"""Which rows a finished run is judged by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distillkit.atomic import save_tensors
from distillkit.evaluation.evaluate import evaluate
from distillkit.evaluation.rows import rows_of
from distillkit.examples.metrics import ExampleMetrics, ExampleMetricsConfig
from distillkit.examples.teacher import ExampleDenoiser
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.fingerprint import plain
from distillkit.training.build import build_parts
from tests.distillkit.launch import told
from tests.distillkit.world import world_recipe, world_teacher


def test_rows_name_last_stage_and_controls() -> None:
    rows = rows_of(world_recipe().refinement.build(), 0, (1, 2, 4))
    assert [(r.key, r.snapshot, r.steps) for r in rows] == [
        ("teacher", None, 1),
        ("start", "start", 1),
        ("student_1", "4-step", 1),
        ("student_2", "4-step", 2),
        ("student_4", "4-step", 4),
        ("student_1_only", "1-step", 1),
        ("student_1_only_2", "1-step", 2),
        ("student_1_only_4", "1-step", 4),
    ]


@pytest.mark.parametrize("stages", [{1: 5}, {2: 5, 4: 5}])
def test_no_controls_without_one_step_only_weights_of_their_own(stages: dict[int, int]) -> None:
    refinement = world_recipe(refinement={"type": "bottom-up", "stages": stages}).refinement.build()
    assert [r.key for r in rows_of(refinement, 0, (1, 2, 4))][-1] == "student_4"


def test_rows_of_the_lengths_that_a_recipe_judges_by() -> None:
    keys = [r.key for r in rows_of(world_recipe().refinement.build(), 0, (1, 3))]
    assert keys == [
        *("teacher", "start", "student_1", "student_3", "student_1_only", "student_1_only_3")
    ]


@pytest.mark.parametrize("known", [True, False], ids=["with a fingerprint", "from before"])
@pytest.mark.usefixtures("examples_installed")
def test_rows_of_a_teacher_that_changed_are_drawn_and_measured_again(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With other files beside equal weights; what was drawn before indices told stays."""
    measured: list[int] = []
    compute = ExampleMetrics.compute

    def counted(self: Any, images: Any, prompts: Any, teacher: Any) -> Any:
        measured.append(len(images))
        return compute(self, images, prompts, teacher)

    monkeypatch.setattr(ExampleMetrics, "compute", counted)
    run = RunFolder(tmp_path / "run")
    metrics = ExampleMetricsConfig(num_images=4, seed=7)
    run.create(dump_recipe(world_recipe(metrics=metrics)), {}, 1)
    weights = dict(world_teacher().denoiser.module.named_parameters())
    save_tensors(run.snapshot("start"), {n: p.detach() for n, p in weights.items()})
    words = ("eval", run.path, "--steps", "1", "--metrics", "example", "--teacher")
    told(0, *words, capsys=capsys)
    assert len(measured) == 3
    files = [*run.path.rglob("pictures/*/index.json"), *run.path.rglob("figures/*.json")]
    assert len(files) == 4 + 3
    for file in files if not known else ():
        file.write_text(json.dumps(plain(json.loads(file.read_text()))))
    assert "replaced" not in told(0, *words, capsys=capsys)
    assert len(measured) == 3
    monkeypatch.setattr(ExampleDenoiser, "prediction", "sample")
    out = told(0, *words, capsys=capsys)
    said = "start: 4 pictures of other weights, configs, prompts or seeds are replaced"
    assert (said in out) == known
    assert len(measured) == (6 if known else 3)
    assert "replaced" not in told(0, *words, capsys=capsys)


@pytest.mark.usefixtures("examples_installed")
def test_a_runs_own_rows_of_a_teacher_that_changed_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = world_recipe(metrics=ExampleMetricsConfig(num_images=4, seed=7, steps=(1,)))
    run, parts = RunFolder(tmp_path / "run"), build_parts(recipe)
    weights = dict(parts.network.module.named_parameters())
    for name in ("start", "1-step", "2-step", "4-step"):
        save_tensors(run.snapshot(name), {n: p.detach() for n, p in weights.items()})
    before = evaluate(recipe, parts, run)
    grid = (run.grids / "start.png").read_bytes()
    monkeypatch.setattr(ExampleDenoiser, "prediction", "sample")
    after = evaluate(recipe, build_parts(recipe), run)
    assert after["start"] != before["start"]
    assert (run.grids / "start.png").read_bytes() != grid

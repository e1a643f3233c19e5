"""Rows, floor and grids, against figures that are worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from rich.console import Console
from torch import Tensor

from distillkit.atomic import save_tensors
from distillkit.configs import MetricsConfig
from distillkit.evaluation.evaluate import (
    evaluate,
    extremes,
    figures_table,
    show,
    steadiness,
    summary,
)
from distillkit.evaluation.grids import make_previews, sheet, square, to_image
from distillkit.evaluation.rows import rows_of
from distillkit.evaluation.sampling import decode, generate, load_snapshot
from distillkit.recipe.schema import Recipe, SamplesConfig
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import cache_folder, figures_cache
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_parts
from distillkit.training.student import Student

from .world import WorldMetrics, WorldMetricsConfig, WorldTeacher, world_recipe

STAGES = ("start", "1-step", "2-step", "4-step")


def finished(tmp_path: Path, recipe: Recipe) -> tuple[Parts, RunFolder]:
    """Parts, and a run folder with snapshots: the start draws noise, the stages less and less."""
    parts, run = build_parts(recipe), RunFolder(tmp_path / "run")
    own = dict(parts.network.module.named_parameters())
    for k, name in enumerate(STAGES):
        save_tensors(run.snapshot(name), {n: p.detach() / (1 + k) for n, p in own.items()})
    return parts, run


class SpyMetrics(WorldMetrics):
    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, list[str], Tensor]] = []

    def figures(self, pictures: Tensor, prompts: Sequence[str], teacher: Tensor) -> Any:
        self.calls.append((pictures, list(prompts), teacher))
        return super().figures(pictures, prompts, teacher) | {"sharpness_ratio": math.nan}


SPY = SpyMetrics()


class SpyMetricsConfig(MetricsConfig):
    """Remembers what it was shown."""

    type: Literal["spy"] = "spy"

    def build(self) -> Any:
        return SPY


def test_rows_name_last_stage_and_control() -> None:
    rows = rows_of(world_recipe().refinement.build(), seed=0)
    assert [(r.key, r.snapshot, r.steps) for r in rows] == [
        ("teacher", None, 1),
        ("start", "start", 1),
        ("student_1", "4-step", 1),
        ("student_2", "4-step", 2),
        ("student_4", "4-step", 4),
        ("student_1_only_4", "1-step", 4),
    ]


@pytest.mark.parametrize("stages", [{1: 5}, {2: 5, 4: 5}])
def test_no_control_without_one_step_only_weights_of_their_own(stages: dict[int, int]) -> None:
    refinement = world_recipe(refinement={"type": "bottom-up", "stages": stages}).refinement.build()
    assert [r.key for r in rows_of(refinement, 0)][-1] == "student_4"


def test_figures_of_a_run(tmp_path: Path) -> None:
    recipe = world_recipe(
        metrics=SpyMetricsConfig(pictures=20, seed=70), samples=SamplesConfig(batch=8)
    )
    parts, run = finished(tmp_path, recipe)
    before = {n: p.detach().clone() for n, p in parts.network.module.named_parameters()}
    told: list[tuple[str, int, int, str]] = []
    SPY.calls.clear()
    table = evaluate(recipe, parts, run, lambda *what: told.append(what))
    assert json.loads(run.figures.read_text()) == table
    assert list(table) == [
        *("teacher", "start", "student_1", "student_2", "student_4", "student_1_only_4"),
        *("floor_frechet_teacher", "summary", "made_with"),
    ]
    # Six rows, and two floors of halves.
    pictures, prompts, reference = SPY.calls[0]
    assert len(SPY.calls) == 8
    assert pictures.shape == (20, 3, 8, 8)
    assert sorted(prompts) == sorted(f"held out 70 {i}" for i in range(20))
    # The reference has the rows' prompts in the rows' order, and other noise.
    assert not torch.isclose(pictures, reference).all(dim=(1, 2, 3)).any()
    other = TeacherSamples(WorldTeacher(), SampleOrder(SPY.prompts(20, 70), 71))
    ids = [next(i for i in range(20) if other.order.prompt(i) == p) for p in prompts]
    again = decode(other.teacher, other.sample(ids, other.x_T(ids), other.conditions(ids)))
    torch.testing.assert_close(reference, again)
    assert all(torch.equal(call[2], reference) for call in [SPY.calls[0], *SPY.calls[3:]])
    assert table["floor_frechet_teacher"] == table["teacher"]["frechet_teacher"] > 0
    assert table["start"]["pictures"] == 20
    assert table["start"]["sharpness_ratio"] is None
    assert table["made_with"]["seed"] == 70
    assert table["made_with"]["snapshots"]["student_1_only_4"] == "1-step"
    # 7 sets of 20 pictures, in batches of 8, 8 and 4.
    assert len(told) == 21
    assert told[0] == ("figures", 8, 140, "reference")
    assert told[-1][:3] == ("figures", 140, 140)
    assert all(torch.equal(before[n], p) for n, p in parts.network.module.named_parameters())
    names = sorted(p.stem for p in run.grids.glob("*.png"))
    assert names == sorted([*list(table)[:6], "compare"])


def test_pictures_of_a_row_are_the_teachers_and_the_snapshots(tmp_path: Path) -> None:
    recipe = world_recipe(metrics=SpyMetricsConfig(pictures=4, seed=70))
    parts, run = finished(tmp_path, recipe)
    SPY.calls.clear()
    evaluate(recipe, parts, run)
    samples = TeacherSamples(WorldTeacher(), SampleOrder(SPY.prompts(4, 70), 70))
    ids = range(4)
    truth = decode(samples.teacher, samples.sample(ids, samples.x_T(ids), samples.conditions(ids)))
    assert torch.equal(SPY.calls[0][0], truth)
    assert SPY.calls[0][1] == [samples.order.prompt(i) for i in ids]
    student = Student(parts.network, parts.teacher.schedule, 500)
    for call, name, steps in [(1, "start", 1), (4, "4-step", 4), (5, "1-step", 4)]:
        load_snapshot(student, run.snapshot(name))
        assert torch.equal(
            SPY.calls[call][0], decode(samples.teacher, generate(student, samples, ids, steps))
        )


def test_teacher_samples_are_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = SamplesConfig(batch=8, count=10, cache=str(tmp_path / "cache"))
    recipe = world_recipe(metrics=WorldMetricsConfig(pictures=20), samples=samples)
    parts, run = finished(tmp_path, recipe)
    online = evaluate(recipe.model_copy(update={"samples": SamplesConfig(batch=8)}), parts, run)
    first = evaluate(recipe, parts, run)
    assert len(list((tmp_path / "cache").glob("figures-*/samples-*.safetensors"))) == 6

    def refuse(*_: Any) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(WorldTeacher, "sample", refuse)
    assert evaluate(recipe, parts, run) == first == online


def test_a_set_that_a_package_does_not_bring_is_not_put_into_it(tmp_path: Path) -> None:
    inside = "package:distillkit_nitrofusion/no-samples"
    recipe = world_recipe(
        metrics=WorldMetricsConfig(pictures=20),
        samples=SamplesConfig(batch=8, count=10, cache=inside),
    )
    parts, run = finished(tmp_path, recipe)
    online = evaluate(recipe.model_copy(update={"samples": SamplesConfig(batch=8)}), parts, run)
    assert evaluate(recipe, parts, run) == online
    assert not cache_folder(inside).exists()


def test_other_figures_get_another_cache_folder(tmp_path: Path) -> None:
    recipe = world_recipe(samples=SamplesConfig(count=4, cache=str(tmp_path)))
    orders = [SampleOrder(["a"], 1), SampleOrder(["a"], 2), SampleOrder(["b"], 1)]
    sets = [TeacherSamples(WorldTeacher(), order) for order in orders]
    retrained = TeacherSamples(WorldTeacher(), orders[0])
    torch.nn.init.zeros_(retrained.teacher.modules()[0].inner.weight)

    def folder(samples: TeacherSamples, count: int) -> Path:
        cache = figures_cache(recipe, samples, count)
        assert cache is not None
        return cache.folder

    folders = {folder(samples, 4) for samples in [*sets, retrained]} | {folder(sets[0], 5)}
    assert len(folders) == 5
    assert folder(sets[0], 4) in folders


def test_without_metrics_there_are_grids_and_no_figures(tmp_path: Path) -> None:
    recipe = world_recipe()
    parts, run = finished(tmp_path, recipe)
    assert evaluate(recipe, parts, run) == {}
    assert not run.figures.exists()
    assert (run.grids / "compare.png").exists()


def test_summary_by_hand() -> None:
    """Floor 2; start 10, so 8 above it; student 4, so 2 above it: a quarter is left."""
    table = {
        k: {"frechet_teacher": v} for k, v in [("teacher", 2), ("start", 10), ("student_1", 4)]
    }
    assert summary(table, {"floor_half_mean": 3.0}) == {
        "floor_frechet_teacher": 2,
        "summary": {
            "excess": {"start": 8, "student_1": 2},
            "excess_ratio": 0.25,
            "floor_half_mean": 3.0,
        },
    }
    table["start"]["frechet_teacher"] = 2
    assert summary(table, {})["summary"]["excess_ratio"] is None
    assert summary({"teacher": {"other": 1.0}}, {}) == {}


def test_steadiness_by_hand() -> None:
    """Halves of value 0 and 1, against halves of value 1 and 4: distances 1 and 9."""
    own, reference = torch.zeros(16, 3, 1, 1), torch.ones(16, 3, 1, 1)
    own[8:], reference[8:] = 1, 4
    found = steadiness(WorldMetrics(), own, ["p"] * 16, reference)
    assert found == {"floor_half_mean": 5.0, "floor_half_spread": 8.0}
    assert steadiness(WorldMetrics(), own[:15], ["p"] * 15, reference) == {}


FIGURES = {
    "teacher": {"frechet_teacher": 1.0, "sharpness_ratio": 1.0, "mine": 1.0, "pictures": 9},
    "start": {"frechet_teacher": 9.0, "sharpness_ratio": 0.7, "mine": 2.0, "pictures": 9},
    "student_1": {"frechet_teacher": 2.0, "sharpness_ratio": 1.2, "mine": 3.0, "pictures": 9},
    "student_2": {"frechet_teacher": None, "sharpness_ratio": 0.9, "mine": 4.0, "pictures": 9},
    "floor_frechet_teacher": 1.0,
}


def test_best_is_lowest_distance_and_sharpness_nearest_to_one() -> None:
    assert extremes(FIGURES, "frechet_teacher") == ({"student_1"}, {"start"})
    assert extremes(FIGURES, "sharpness_ratio") == ({"student_2"}, {"start"})
    assert extremes(FIGURES, "mine") == (set(), set())  # nobody said which way is better


def test_table_for_the_terminal() -> None:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(figures_table(FIGURES))
    lines = capture.get().splitlines()
    assert lines[0].split() == ["Fréchet", "to", "teacher", "sharpness", "mine"]
    assert lines[3].split() == ["student,", "1", "step", "2.00", "1.20", "3.00"]
    assert lines[4].split() == ["student,", "2", "steps", "–", "0.900", "4.00"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "–"), (1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23"), (0.987, "0.987")),
        *((0.0123, "0.0123"), (-0.000012, "-0.00001"), (0.0, "0.00000")),
    ],
)
def test_digits(value: float | None, text: str) -> None:
    assert show(value) == text


def test_sheet_magnifies_by_whole_factors_and_leaves_room_for_words() -> None:
    """8 pixels become 96 (12 a pixel); two columns and a gap of 4 make 196."""
    red = torch.zeros(2, 3, 8, 8)
    red[:, 0] = 1
    image = sheet([red, red])
    assert image.size == (196, 196)
    assert image.getpixel((95, 95)) == (255, 0, 0)
    assert image.getpixel((97, 5)) == (255, 255, 255)
    named = sheet([red, red], ["teacher", "1 step"], ["a very long caption " * 20, "b"])
    assert named.width > 196 + 40
    assert 196 + 5 * 17 <= named.height <= 196 + 6 * 17  # five lines of caption at most
    assert named.getpixel((named.width - 1, named.height - 1)) == (255, 0, 0)


def test_large_pictures_are_reduced_where_asked() -> None:
    assert sheet([torch.zeros(1, 3, 64, 128)], most=32).size == (32, 16)
    assert sheet([torch.zeros(1, 3, 64, 128)], cell=1).size == (128, 64)
    assert square(torch.zeros(5, 3, 4, 4), cell=1).size == (3 * 4 + 8, 2 * 4 + 4)


def test_pixels_are_rounded() -> None:
    """0.5 * 255 = 127.5, which rounds to the even 128; values outside of [0, 1] are clamped."""
    assert to_image(torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1)).getpixel((0, 0)) == (128, 0, 255)


def test_previews_ask_the_teacher_once_and_the_student_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    inner = WorldTeacher.sample
    monkeypatch.setattr(WorldTeacher, "sample", lambda *a: asked.append(1) or inner(*a))
    recipe = world_recipe(metrics=WorldMetricsConfig())
    parts = build_parts(recipe)
    previews = make_previews(recipe, parts)
    student = Student(parts.network, parts.teacher.schedule, 500)
    first = previews.image(student)
    assert first.tobytes() == previews.image(student).tobytes()
    with torch.no_grad():
        next(parts.network.module.parameters()).mul_(2)
    assert first.tobytes() != previews.image(student).tobytes()
    assert asked == [1]
    assert previews.samples.order.prompt(0).startswith("held out")

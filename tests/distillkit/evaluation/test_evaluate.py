"""A run's metrics: what is compared with what, and the floor, against values worked out by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from distillkit.atomic import save_tensors
from distillkit.evaluation.evaluate import evaluate
from distillkit.evaluation.figures import floor_metric, floor_spread, summary
from distillkit.evaluation.rows import LABELS
from distillkit.evaluation.sampling import decode, generate
from distillkit.examples.metrics import ExampleMetrics, ExampleMetricsConfig
from distillkit.examples.teacher import ExampleTeacher
from distillkit.exchange import packaged_path
from distillkit.recipe.schema import Recipe, SamplesConfig
from distillkit.report.measured import measured
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import evaluation_cache
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_parts
from distillkit.training.models.student import Student
from distillkit.values import MetricInfo
from tests.distillkit.world import world_recipe, world_teacher

STAGES = ("start", "1-step", "2-step", "4-step")


def finished(tmp_path: Path, recipe: Recipe) -> tuple[Parts, RunFolder]:
    """Parts, and a run folder with snapshots: the start draws noise, the stages less and less."""
    parts, run = build_parts(recipe), RunFolder(tmp_path / "run")
    own = dict(parts.network.module.named_parameters())
    for k, name in enumerate(STAGES):
        save_tensors(run.snapshot(name), {n: p.detach() / (1 + k) for n, p in own.items()})
    return parts, run


CALLS: list[tuple[Tensor, list[str], Tensor]] = []
"""What `SpyMetrics` was called with: pictures, prompts, the teacher's pictures."""


class SpyMetrics(ExampleMetrics):
    """The example, with a metric that nobody can compute."""

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        return {**super().info, "unknown": MetricInfo("unknown", "Not a number.", better="lower")}

    def compute(self, images: Tensor, prompts: Sequence[str], teacher: Tensor) -> Any:
        CALLS.append((images, list(prompts), teacher))
        return {**super().compute(images, prompts, teacher), "unknown": math.nan}


class SpyMetricsConfig(ExampleMetricsConfig):
    """Remembers what it was shown."""

    type: Literal["spy"] = "spy"

    def build(self) -> Any:
        CALLS.clear()
        return SpyMetrics(self.subject)


SPY = SpyMetrics("a star")


def test_a_recipe_says_by_how_many_steps_it_is_judged(tmp_path: Path) -> None:
    """A row for each; what others judge with one step alone is not drawn with four."""
    recipe = world_recipe(
        metrics=SpyMetricsConfig(num_images=4, seed=70, steps=(2,)), samples=SamplesConfig(batch=8)
    )
    parts, run = finished(tmp_path, recipe)
    table = evaluate(recipe, parts, run)
    rows = [key for key in table if key in LABELS]
    assert rows == ["teacher", "start", "student_2", "student_1_only_2"]
    assert table["summary"]["excess_ratio"] is None
    assert (run.path / "grids" / "student_2.png").is_file()
    [found] = measured(run, None)
    assert found.own == ["student_2"]  # the newest weights' own, for the model card


@pytest.mark.parametrize("steps", [(), (0,), (5,), (2, 1), (1, 1)])
def test_steps_that_no_student_has(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="steps"):
        SpyMetricsConfig(steps=steps)


def test_metrics_of_a_run(tmp_path: Path) -> None:
    recipe = world_recipe(
        metrics=SpyMetricsConfig(num_images=20, seed=70), samples=SamplesConfig(batch=8)
    )
    parts, run = finished(tmp_path, recipe)
    before = {n: p.detach().clone() for n, p in parts.network.module.named_parameters()}
    told: list[tuple[str, int, int, str]] = []
    table = evaluate(recipe, parts, run, lambda *what: told.append(what))
    assert json.loads(run.metrics.read_text()) == table
    assert list(table) == [
        *("teacher", "start", "student_1", "student_2", "student_4"),
        *("student_1_only", "student_1_only_2", "student_1_only_4"),
        *("floor_distance", "summary", "made_with", "info"),
    ]
    # Eight rows, and two floors of halves.
    pictures, prompts, reference = CALLS[0]
    assert len(CALLS) == 10
    assert pictures.shape == (20, 3, 8, 8)
    assert sorted(prompts) == sorted(f"a star, number {70 + i}" for i in range(20))
    # The reference has the rows' prompts in the rows' order, and other noise.
    assert not torch.isclose(pictures, reference).all(dim=(1, 2, 3)).any()
    other = TeacherSamples(world_teacher(), SampleOrder(SPY.prompts(20, 70), 71))
    ids = [next(i for i in range(20) if other.order.prompt(i) == p) for p in prompts]
    again = decode(other.teacher, other.sample(ids, other.x_T(ids), other.conditions(ids)))
    torch.testing.assert_close(reference, again)
    assert all(torch.equal(call[2], reference) for call in [CALLS[0], *CALLS[3:]])
    assert table["floor_distance"] == table["teacher"]["distance"] > 0
    assert table["start"]["num_images"] == 20
    assert table["start"]["unknown"] is None
    assert table["info"]["brightness"]["better"] == "teacher"
    assert table["made_with"]["seed"] == 70
    assert table["made_with"]["snapshots"]["student_1_only_4"] == "1-step"
    assert table["made_with"]["steps"]["student_1_only_4"] == 4
    # 9 sets of 20 pictures, in batches of 8, 8 and 4.
    assert len(told) == 27
    assert told[0] == ("evaluation", 8, 180, "reference")
    assert told[-1][:3] == ("evaluation", 180, 180)
    assert all(torch.equal(before[n], p) for n, p in parts.network.module.named_parameters())
    names = sorted(p.stem for p in run.grids.glob("*.png"))
    assert names == sorted([*list(table)[:8], "compare"])


def test_pictures_of_a_row_are_the_teachers_and_the_snapshots(tmp_path: Path) -> None:
    recipe = world_recipe(metrics=SpyMetricsConfig(num_images=4, seed=70))
    parts, run = finished(tmp_path, recipe)
    evaluate(recipe, parts, run)
    samples = TeacherSamples(world_teacher(), SampleOrder(SPY.prompts(4, 70), 70))
    ids = range(4)
    truth = decode(samples.teacher, samples.sample(ids, samples.x_T(ids), samples.conditions(ids)))
    assert torch.equal(CALLS[0][0], truth)
    assert CALLS[0][1] == [samples.order.prompt(i) for i in ids]
    student = Student(parts.network, parts.teacher.schedule, 500)
    for call, name, steps in [
        (1, "start", 1),
        (4, "4-step", 4),
        (5, "1-step", 1),
        (7, "1-step", 4),
    ]:
        student.load_snapshot(run.snapshot(name))
        assert torch.equal(
            CALLS[call][0], decode(samples.teacher, generate(student, samples, ids, steps))
        )


def test_shares_of_the_rows_are_found_by_the_whole(tmp_path: Path) -> None:
    """Each measures its own rows and nothing else; the whole says the same as without them."""
    recipe = world_recipe(
        metrics=SpyMetricsConfig(num_images=20, seed=70), samples=SamplesConfig(batch=8)
    )
    parts, run = finished(tmp_path / "alone", recipe)
    alone = evaluate(recipe, parts, run)
    assert len(CALLS) == 10
    parts, run = finished(tmp_path / "shared", recipe)
    for share, calls in ((slice(0, None, 2), 6), (slice(1, None, 2), 4)):
        assert evaluate(recipe, parts, run, share=share) == {}
        assert len(CALLS) == calls
        assert not run.metrics.exists()
    assert len(list(run.grids.glob("*.png"))) == 8
    assert evaluate(recipe, parts, run) == alone
    assert len(CALLS) == 0
    assert (run.grids / "compare.png").is_file()


def test_teacher_samples_are_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = SamplesConfig(batch=8, count=10, cache=str(tmp_path / "cache"))
    recipe = world_recipe(metrics=ExampleMetricsConfig(num_images=20), samples=samples)
    parts, run = finished(tmp_path, recipe)
    online = evaluate(recipe.model_copy(update={"samples": SamplesConfig(batch=8)}), parts, run)
    first = evaluate(recipe, parts, run)
    assert len(list((tmp_path / "cache").glob("figures-*/samples-*.safetensors"))) == 6

    def refuse(*_: Any) -> None:
        raise AssertionError("sampled again")

    monkeypatch.setattr(ExampleTeacher, "sample", refuse)
    assert evaluate(recipe, parts, run) == first == online


def test_a_set_that_a_package_does_not_bring_is_not_put_into_it(tmp_path: Path) -> None:
    inside = "package:distillkit.examples/no-samples"
    recipe = world_recipe(
        metrics=ExampleMetricsConfig(num_images=20),
        samples=SamplesConfig(batch=8, count=10, cache=inside),
    )
    parts, run = finished(tmp_path, recipe)
    online = evaluate(recipe.model_copy(update={"samples": SamplesConfig(batch=8)}), parts, run)
    assert evaluate(recipe, parts, run) == online
    assert not packaged_path(inside, "samples.cache").exists()


def test_another_set_gets_another_cache_folder(tmp_path: Path) -> None:
    recipe = world_recipe(samples=SamplesConfig(count=4, cache=str(tmp_path)))
    orders = [SampleOrder(["a"], 1), SampleOrder(["a"], 2), SampleOrder(["b"], 1)]
    sets = [TeacherSamples(world_teacher(), order) for order in orders]
    retrained = TeacherSamples(world_teacher(), orders[0])
    torch.nn.init.zeros_(retrained.teacher.modules()[0].weight)

    def folder(samples: TeacherSamples, count: int) -> Path:
        cache = evaluation_cache(recipe, samples, count)
        assert cache is not None
        return cache.folder

    folders = {folder(samples, 4) for samples in [*sets, retrained]} | {folder(sets[0], 5)}
    assert len(folders) == 5
    assert folder(sets[0], 4) in folders


def test_without_metrics_there_are_grids_alone(tmp_path: Path) -> None:
    recipe = world_recipe()
    parts, run = finished(tmp_path, recipe)
    assert evaluate(recipe, parts, run) == {}
    assert not run.metrics.exists()
    assert (run.grids / "compare.png").exists()


def test_summary_by_hand() -> None:
    """Floor 2; start 10, so 8 above it; student 4, so 2 above it: a quarter is left."""
    rows = {"teacher": 2, "start": 10, "student_1": 4}
    table = {key: {"mine": value, "other": 7} for key, value in rows.items()}
    assert summary(table, "mine", {"floor_half_mean": 3.0}) == {
        "floor_mine": 2,
        "summary": {
            "metric": "mine",
            "floor": 2,
            "excess": {"start": 8, "student_1": 2},
            "excess_ratio": 0.25,
            "floor_half_mean": 3.0,
        },
    }
    table["start"]["mine"] = 2
    assert summary(table, "mine", {})["summary"]["excess_ratio"] is None
    assert summary(table, "absent", {}) == {}
    assert summary(table, None, {}) == {}


def test_floor_spread_by_hand() -> None:
    """Halves of value 0 and 1, against halves of value 1 and 4: distances 1 and 9."""
    own, reference = torch.zeros(16, 3, 1, 1), torch.ones(16, 3, 1, 1)
    own[8:], reference[8:] = 1, 4
    metrics = ExampleMetrics("a star")
    found = floor_spread(metrics, own, ["p"] * 16, reference)
    assert found == {"floor_half_mean": 5.0, "floor_half_spread": 8.0}
    assert floor_spread(metrics, own[:15], ["p"] * 15, reference) == {}


def test_without_a_metric_that_has_a_floor_there_is_none() -> None:
    class Brightness(ExampleMetrics):
        @property
        def info(self) -> Mapping[str, MetricInfo]:
            return {name: info for name, info in super().info.items() if not info.floor}

    images = torch.zeros(16, 3, 1, 1)
    assert floor_metric(ExampleMetrics("a star")) == "distance"
    assert floor_metric(Brightness("a star")) is None
    assert floor_spread(Brightness("a star"), images, ["p"] * 16, images) == {}

"""Metrics of a finished run: teacher, start and student beside teacher pictures of other noise.

Two sets are drawn on the same captions, unseen by training, with other noise: `own` with
`metrics.seed`, and `reference` with the seed after it. Every row, the teacher's too, is made on
`own`; what it is measured against is the teacher on `reference`. With the same noise a student's
pictures would be paired with the teacher's: what they share by chance would count as quality, and
the teacher's own distance would be zero. As it is, that distance is the floor, below which no
student can be expected to come. With other captions, most of the distance would be that between the
captions (`benchmarks/floor.py` measures both).

Legend: B pictures of a set, H, W pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from distillkit.atomic import write_text
from distillkit.contracts import Metrics
from distillkit.evaluation.metrics_set import MetricsSet
from distillkit.evaluation.rows import GRID, Evaluator, Progress, ProgressCount, Row, rows_of
from distillkit.recipe.schema import Recipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_part

GRID_SEED = 1_000_003
"""Seed of the grids of a recipe without metrics."""
FEWEST = 16
"""Pictures a row that it takes to halve the sets for the floor's spread."""


def evaluate(
    recipe: Recipe, parts: Parts, run: RunFolder, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Draw every row; write its grid, `grids/compare.png` and, with metrics, `metrics.json`.

    The teacher must be on the network's device. Snapshots are loaded into the network meanwhile;
    it has its own weights again afterwards. Returns what `metrics.json` holds, or nothing where the
    recipe has no metrics.
    """
    rows = rows_of(build_part(recipe.refinement), recipe.run.seed)
    if not recipe.metrics:
        evaluator = Evaluator(recipe, parts, run, GRID, ProgressCount(progress, len(rows) * GRID))
        evaluator.draw(rows, evaluator.samples(parts.prompts, GRID_SEED))
        return {}
    metrics = MetricsSet.build(recipe.metrics)
    count, seed = recipe.metrics[0].num_images, recipe.metrics[0].seed
    total = (len(rows) + 1) * count
    evaluator = Evaluator(recipe, parts, run, count, ProgressCount(progress, total))
    own, reference = make_sets(metrics, count, seed, evaluator.samples)
    prompts = [own.order.prompt(i) for i in range(count)]
    matched = match(prompts, [reference.order.prompt(i) for i in range(count)])
    reference_B3HW = evaluator.teacher(reference, "reference")[matched]
    table: dict[str, Any] = {}
    halves: dict[str, float] = {}

    def measure(row: Row, images_B3HW: Tensor) -> None:
        values = metrics.compute(images_B3HW, prompts, reference_B3HW)
        table[row.key] = _finite(values) | {"num_images": count}
        if row.snapshot is None:
            halves.update(floor_spread(metrics, images_B3HW, prompts, reference_B3HW))

    evaluator.draw(rows, own, measure)
    snapshots = {row.key: row.snapshot for row in rows if row.snapshot is not None}
    made_with = {"seed": seed, "reference_seed": seed + 1, "snapshots": snapshots}
    info = {name: asdict(info) for name, info in metrics.info.items()}
    table |= summary(table, floor_metric(metrics), halves)
    table |= {"made_with": made_with, "info": info}
    write_text(run.metrics, json.dumps(table, indent=1) + "\n")
    return table


def make_sets(
    metrics: Metrics,
    count: int,
    seed: int,
    samples: Callable[[Sequence[str], int], TeacherSamples],
) -> tuple[TeacherSamples, TeacherSamples]:
    """The set that rows are drawn on, and the reference. `samples(prompts, seed)` makes one."""
    prompts = metrics.prompts(count, seed)
    return samples(prompts, seed), samples(prompts, seed + 1)


def match(prompts: Sequence[str], others: Sequence[str]) -> list[int]:
    """Index of each of `prompts` in `others`, which holds the same in another order."""
    indices: dict[str, list[int]] = {}
    for index, prompt in enumerate(others):
        indices.setdefault(prompt, []).append(index)
    return [indices[prompt].pop() for prompt in prompts]


def floor_metric(metrics: Metrics) -> str | None:
    """The first metric with a floor: the distance that the summary is about."""
    return next((name for name, info in metrics.info.items() if info.floor), None)


def summary(
    table: Mapping[str, Any], distance: str | None, halves: Mapping[str, float]
) -> dict[str, Any]:
    """The floor of `distance`, its spread, and how far above it every row is.

    `excess_ratio` is the student's excess at one step over the start's: 0 is as good as the
    teacher, 1 is no better than the start.
    """
    floor = None if distance is None else table["teacher"].get(distance)
    if floor is None:
        return {}
    distances = {key: row.get(distance) for key, row in table.items() if key != "teacher"}
    excess = {key: d - floor for key, d in distances.items() if d is not None}
    ratio = None
    if excess.get("start", 0) > 0 and "student_1" in excess:
        ratio = excess["student_1"] / excess["start"]
    return {
        f"floor_{distance}": floor,
        "summary": {"metric": distance, "floor": floor, "excess": excess, "excess_ratio": ratio}
        | dict(halves),
    }


def floor_spread(
    metrics: Metrics, own_B3HW: Tensor, prompts: Sequence[str], reference_B3HW: Tensor
) -> dict[str, float]:
    """The floor from half as many pictures: each half of `own` against its half of `reference`.

    `floor_half_mean` and `floor_half_spread` (their difference). Distances of distributions
    fall with the number of pictures, so the mean lies above the floor of the whole; the spread says
    roughly how far another choice of pictures would move the floor.
    """
    distance, half = floor_metric(metrics), len(own_B3HW) // 2
    if distance is None or len(own_B3HW) < FEWEST:
        return {}
    floors = []
    for part in (slice(0, half), slice(half, 2 * half)):
        values = metrics.compute(own_B3HW[part], prompts[part], reference_B3HW[part])
        floors.append(values.get(distance, math.nan))
    if not all(map(math.isfinite, floors)):
        return {}
    return {
        "floor_half_mean": sum(floors) / len(floors),
        "floor_half_spread": max(floors) - min(floors),
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN and no infinity: None in their place."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}

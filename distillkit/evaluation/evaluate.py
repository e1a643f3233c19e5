"""Metrics of a finished run: teacher, start and student beside teacher pictures of other noise.

Two sets are drawn on the same captions, unseen by training, with other noise: `own` with
`metrics.seed`, and `reference` with the seed after it. Every row, the teacher's too, is made on
`own`; what it is measured against is the teacher on `reference`. With the same noise a student's
pictures would be paired with the teacher's: what they share by chance would count as quality, and
the teacher's own distance would be zero. As it is, that distance is the floor, below which no
student can be expected to come. With other captions, most of the distance would be that between the
captions (`benchmarks/judge.py --floor` measures both).

Legend: B pictures of a set, H, W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from distillkit.atomic import write_text
from distillkit.contracts import Metrics
from distillkit.evaluation.figures import Figures, tabulate
from distillkit.evaluation.metrics_set import MetricsSet
from distillkit.evaluation.rows import (
    GRID,
    Evaluator,
    Progress,
    ProgressCount,
    rows_of,
    steps_of,
)
from distillkit.recipe.schema import Recipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_part

GRID_SEED = 1_000_003
"""Seed of the grids of a recipe without metrics."""


def evaluate(
    recipe: Recipe,
    parts: Parts,
    run: RunFolder,
    progress: Progress = lambda *_: None,
    share: slice | None = None,
) -> dict[str, Any]:
    """Draw every row; write its grid, `grids/compare.png` and, with metrics, `metrics.json`.

    The teacher must be on the network's device. Snapshots are loaded into the network meanwhile;
    it has its own weights again afterwards. A row whose figures are in the run already is not drawn
    again. Returns what `metrics.json` holds, or nothing where the recipe has no metrics.

    With a `share` of the rows, those alone are drawn and measured, counted by a progress bar of
    their own, and nothing is returned: a later call finds their figures in the run.
    """
    lengths = recipe.metrics[0].steps if recipe.metrics else (1, 2, 4)
    rows = rows_of(build_part(recipe.refinement), recipe.run.seed, lengths)
    if not recipe.metrics:
        if share is not None:
            return {}
        evaluator = Evaluator(recipe, parts, run, GRID, ProgressCount(progress, len(rows) * GRID))
        samples = evaluator.samples(parts.prompts, GRID_SEED)
        with evaluator.student.weights_restored():
            for row in rows:
                evaluator.images(row, samples)
            evaluator.complete(rows, samples)
        return {}
    metrics = MetricsSet.build(recipe.metrics)
    count, seed = recipe.metrics[0].num_images, recipe.metrics[0].seed
    drawn = rows if share is None else rows[share]
    what = "evaluation" if share is None else "evaluation, own rows"
    progress_count = ProgressCount(progress, (len(drawn) + 1) * count, what)
    evaluator = Evaluator(recipe, parts, run, count, progress_count)
    own, reference = make_sets(metrics, count, seed, evaluator.samples)
    prompts = [own.order.prompt(i) for i in range(count)]

    @cache
    def against() -> Any:
        matched = match(prompts, [reference.order.prompt(i) for i in range(count)])
        return evaluator.teacher(reference, "reference")[matched]

    with evaluator.student.weights_restored():
        table, singles = tabulate(
            drawn,
            Figures(metrics, run.path / "figures", prompts),
            lambda row: evaluator.identity(row, own),
            lambda row: cache(partial(evaluator.images, row, own)),
            against,
        )
        if share is not None:
            return {}
        evaluator.complete(rows, own)
    snapshots = {row.key: row.snapshot for row in rows if row.snapshot is not None}
    made_with = {"seed": seed, "reference_seed": seed + 1, "snapshots": snapshots}
    made_with["steps"] = steps_of(rows, getattr(recipe.teacher, "steps", None))
    return write_metrics(run.path, metrics, table, singles, made_with, prompts)


def write_metrics(
    folder: Path,
    metrics: MetricsSet,
    table: Mapping[str, Any],
    singles: Mapping[str, Mapping[str, Any]],
    made_with: Mapping[str, Any],
    prompts: Sequence[str],
) -> dict[str, Any]:
    """Write `metrics.json`, and `per_picture.json` where a metric has values of single pictures;
    returns what the first holds."""
    info = {name: asdict(info) for name, info in metrics.info.items()}
    whole = dict(table) | {"made_with": dict(made_with), "info": info}
    write_text(folder / "metrics.json", json.dumps(whole, indent=1) + "\n")
    if any(singles.values()):
        pictures = {"seed": made_with["seed"], "prompts": list(prompts), "rows": singles}
        write_text(folder / "per_picture.json", json.dumps(pictures) + "\n")
    return whole


def make_sets(
    metrics: Metrics | MetricsSet,
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

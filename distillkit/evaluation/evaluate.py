"""Figures of a finished run: teacher, start and student beside teacher pictures of other seeds.

Two sets are drawn on the same captions, unseen by training, with other noise: `own` with
`metrics.seed`, and `reference` with the seed after it. Every row, the teacher's too, is made on
`own`; what it is measured against is the teacher on `reference`. Had both the same noise, a
student's pictures would be paired with the teacher's: chance that they share would count as
quality, and the teacher's own distance would be zero. As it is, that distance is the floor, below
which no student can be expected to come. Had they other captions, most of the distance would be
that between the captions: of 1,000 true pictures of the shapes world each, two sets lie 0.94
(standard deviation 0.09) apart with other captions, and 0.17 (0.02) with the same
(`benchmarks/floor.py`).

Legend: B pictures of a set, H, W pixels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from distillkit.atomic import write_text
from distillkit.contracts import Metrics
from distillkit.evaluation.rows import GRID, LABELS, Progress, Row, Studio, Tally, rows_of
from distillkit.recipe.schema import Recipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.pairs import Pairs
from distillkit.training.build import Parts, build_part

if TYPE_CHECKING:
    from rich.table import Table

DISTANCE = "frechet_teacher"
"""The figure whose floor is known; metrics that do not have it get no floor."""
GRID_SEED = 1_000_003
"""Seed of the grids of a recipe without metrics."""
FEWEST = 16
"""Pictures a row that it takes to halve the sets for the floor's steadiness."""


class Meaning(NamedTuple):
    """What a figure is called and says, and which value is best."""

    title: str
    best: float
    sentence: str


_FRECHET = (
    "This is not FID, whose features come from another network: compare it with other "
    "runs of the same recipe's metrics and number of pictures, not with published numbers."
)
MEANINGS = {
    "caption_accuracy": Meaning(
        "caption accuracy", 1, "Share of pictures that show what the caption says. 1 is best."
    ),
    "frechet_teacher": Meaning(
        "Fréchet to teacher",
        0,
        "Fréchet distance to the teacher's pictures of other seeds, in the features of the "
        "metrics' own network (in the embedded world, its small classifier); lower is "
        "better, down to the floor. " + _FRECHET,
    ),
    "frechet_true": Meaning(
        "Fréchet to truth",
        0,
        "The same distance to fresh true pictures: what the student lost, or mended, together "
        "with what its teacher had lost. Lower is better.",
    ),
    "kid_teacher": Meaning(
        "KID to teacher",
        0,
        "Kernel distance to the teacher's pictures in the same features; unlike the Fréchet "
        "distance it does not fall with the number of pictures. Its floor is the teacher's row, "
        "a little below 0, since both sets have the same captions.",
    ),
    "sharpness_ratio": Meaning(
        "sharpness", 1, "Fine detail relative to the teacher's: below 1 is blurred, above 1 grainy."
    ),
    "extra_objects": Meaning(
        "extra objects", 0, "Share of pictures with more objects than the caption asks for."
    ),
}
"""Figures that the core can explain; metrics may bring others, which are shown by their name."""


def evaluate(
    recipe: Recipe, parts: Parts, run: RunFolder, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Draw every row; write its grid, `grids/compare.png` and, with metrics, `figures.json`.

    The teacher must be on the network's device. The network wears snapshots meanwhile and has its
    own weights again afterwards. Returns what `figures.json` holds, or nothing where the recipe
    has no metrics.
    """
    rows = rows_of(build_part(recipe.refinement), recipe.run.seed)
    if recipe.metrics is None:
        studio = Studio(recipe, parts, run, GRID, Tally(progress, len(rows) * GRID))
        studio.draw(rows, studio.pairs(parts.prompts, GRID_SEED))
        return {}
    metrics, count, seed = build_part(recipe.metrics), recipe.metrics.pictures, recipe.metrics.seed
    studio = Studio(recipe, parts, run, count, Tally(progress, (len(rows) + 1) * count))
    own, others = sets_of(metrics, count, seed, studio.pairs)
    prompts, theirs = ([pairs.stream.prompt(i) for i in range(count)] for pairs in (own, others))
    reference_B3HW = studio.teacher(others, "reference")[matches(prompts, theirs)]
    table: dict[str, Any] = {}
    halves: dict[str, float] = {}

    def measure(row: Row, pictures_B3HW: Tensor) -> None:
        figures = metrics.figures(pictures_B3HW, prompts, reference_B3HW)
        table[row.key] = _finite(figures) | {"pictures": count}
        if row.snapshot is None:
            halves.update(steadiness(metrics, pictures_B3HW, prompts, reference_B3HW))

    studio.draw(rows, own, measure)
    snapshots = {row.key: row.snapshot for row in rows if row.snapshot is not None}
    made_with = {"seed": seed, "reference_seed": seed + 1, "snapshots": snapshots}
    table |= summary(table, halves) | {"made_with": made_with}
    write_text(run.figures, json.dumps(table, indent=1) + "\n")
    return table


def sets_of(
    metrics: Metrics, count: int, seed: int, pairs: Callable[[Sequence[str], int], Pairs]
) -> tuple[Pairs, Pairs]:
    """The two sets: that on which rows are drawn, and the reference. `pairs`: prompts, seed."""
    prompts = metrics.prompts(count, seed)
    return pairs(prompts, seed), pairs(prompts, seed + 1)


def matches(prompts: Sequence[str], others: Sequence[str]) -> list[int]:
    """Where each of `prompts` stands in `others`, which has the same in another order."""
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(others):
        places.setdefault(prompt, []).append(place)
    return [places[prompt].pop() for prompt in prompts]


def summary(table: Mapping[str, Any], halves: Mapping[str, float]) -> dict[str, Any]:
    """The floor, how steady it is, and how far above it every row stands.

    `excess_ratio` is the student's excess at one step over the start's: 0 is as good as the
    teacher, 1 is no better than the start.
    """
    floor = table["teacher"].get(DISTANCE)
    if floor is None:
        return {}
    distances = {key: row.get(DISTANCE) for key, row in table.items() if key != "teacher"}
    excess = {key: d - floor for key, d in distances.items() if d is not None}
    ratio = None
    if excess.get("start", 0) > 0 and "student_1" in excess:
        ratio = excess["student_1"] / excess["start"]
    return {
        f"floor_{DISTANCE}": floor,
        "summary": {"excess": excess, "excess_ratio": ratio} | dict(halves),
    }


def steadiness(
    metrics: Metrics, own_B3HW: Tensor, prompts: Sequence[str], reference_B3HW: Tensor
) -> dict[str, float]:
    """The floor from half as many pictures: each half of `own` against its half of `reference`.

    `floor_half_mean` and `floor_half_spread` (their difference). A Fréchet distance falls with the
    number of pictures, so the mean lies above the floor of the whole; the spread says roughly how
    far another choice of pictures would move the floor.
    """
    half = len(own_B3HW) // 2
    if len(own_B3HW) < FEWEST:
        return {}
    floors = []
    for part in (slice(0, half), slice(half, 2 * half)):
        figures = metrics.figures(own_B3HW[part], prompts[part], reference_B3HW[part])
        floors.append(figures.get(DISTANCE, math.nan))
    if not all(map(math.isfinite, floors)):
        return {}
    return {
        "floor_half_mean": sum(floors) / len(floors),
        "floor_half_spread": max(floors) - min(floors),
    }


def rows_in(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of `figures.json`, without what else stands in it."""
    return {key: figures[key] for key in LABELS if key in figures}


def columns_in(figures: Mapping[str, Any]) -> list[str]:
    """The figures of the rows; the known ones first."""
    found = [name for row in rows_in(figures).values() for name in row if name != "pictures"]
    known = [name for name in MEANINGS if name in found]
    return list(dict.fromkeys(known + found))


def extremes(figures: Mapping[str, Any], column: str) -> tuple[set[str], set[str]]:
    """Keys of the best and the worst rows of a figure; the teacher's row does not compete."""
    if column not in MEANINGS:
        return set(), set()
    rows = {key: row for key, row in rows_in(figures).items() if key != "teacher"}
    away = {
        key: abs(row[column] - MEANINGS[column].best)
        for key, row in rows.items()
        if row.get(column) is not None
    }
    if len(set(away.values())) < 2:
        return set(), set()
    low, high = min(away.values()), max(away.values())
    return {k for k, v in away.items() if v == low}, {k for k, v in away.items() if v == high}


def show(value: float | None) -> str:
    """A figure with about three digits that tell something."""
    if value is None:
        return "–"
    size = abs(value)
    digits = next((d for d, least in enumerate((100, 10, 1, 0.1, 0.001)) if size >= least), 5)
    return f"{value:.{digits}f}"


def figures_table(figures: Mapping[str, Any]) -> Table:
    """The figures for the terminal: best of a column in green, worst in red."""
    from rich.table import Table
    from rich.text import Text

    columns = columns_in(figures)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(MEANINGS[column].title if column in MEANINGS else column, justify="right")
    marks = {column: extremes(figures, column) for column in columns}
    for key, row in rows_in(figures).items():
        cells = [Text(LABELS[key])]
        for column in columns:
            best, worst = marks[column]
            style = "bold green" if key in best else "red" if key in worst else ""
            cells.append(Text(show(row.get(column)), style))
        table.add_row(*cells)
    return table


def _finite(figures: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN and no infinity: none in their place."""
    return {name: float(value) if math.isfinite(value) else None for name, value in figures.items()}

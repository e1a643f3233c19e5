"""Rows of pictures that a finished run is judged by: teacher, start, and the student at 1, 2, 4.

All rows are drawn on the same prompts and noise, batch by batch, each with its grid.

Legend: B pictures of a set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distillkit.contracts import Refinement
from distillkit.evaluation.grids import MOST, save_image, sheet, square
from distillkit.evaluation.sampling import (
    batches,
    decode,
    generate,
    stage_names,
)
from distillkit.randomness import generator
from distillkit.recipe.schema import Recipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import evaluation_cache, is_shipped
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts
from distillkit.training.models.student import Student

COLUMNS, GRID = 8, 64
"""Pictures in a row of `compare.png`, and in each of the other grids."""

LABELS = {
    "teacher": "teacher",
    "start": "start, 1 step",
    "student_1": "student, 1 step",
    "student_2": "student, 2 steps",
    "student_4": "student, 4 steps",
    "student_1_only_4": "1-step-only, 4 steps",
}
"""Rows by their key, as grids and tables name them."""

Progress = Callable[[str, int, int, str], None]
"""Called with what is made, pictures done, pictures in all, and the label of their row."""


@dataclass(frozen=True)
class Row:
    """Which weights, and how many steps."""

    key: str
    snapshot: str | None = None
    """None is the teacher."""
    steps: int = 1

    @property
    def label(self) -> str:
        """The row's name for readers."""
        return LABELS[self.key]


def rows_of(refinement: Refinement, seed: int) -> list[Row]:
    """The rows of a run: teacher, start, the last weights at 1, 2, 4 steps, and the control.

    The control is one-step-only weights run with 4 steps. It needs a first stage that trained
    single steps alone, and a later stage to be compared with.
    """
    stages = stage_names(refinement)
    rows = [Row("teacher"), Row("start", "start")]
    rows += [Row(f"student_{k}", stages[-1], k) for k in (1, 2, 4)]
    first = [i for i in range(refinement.iterations) if refinement.stage(i) == stages[0]]
    single = all(refinement.steps(i, generator(seed, "steps", i)) == 1 for i in first)
    if len(stages) > 1 and single:
        rows.append(Row("student_1_only_4", stages[0], 4))
    return rows


@dataclass
class ProgressCount:
    """Counts pictures for the progress bar."""

    progress: Progress
    total: int
    done: int = 0

    def add(self, count: int, note: str) -> None:
        """`count` more are there."""
        self.done += count
        self.progress("evaluation", self.done, self.total, note)


@dataclass
class Evaluator:
    """Draws rows of `count` pictures, and their grids."""

    recipe: Recipe
    parts: Parts
    run: RunFolder
    count: int
    count_progress: ProgressCount

    def __post_init__(self) -> None:
        schedule = self.parts.teacher.schedule
        self.student = Student.of(self.parts.network, schedule, self.recipe.student)

    def samples(self, prompts: Sequence[str], seed: int) -> TeacherSamples:
        """A set: its prompts and noise."""
        device = next(self.parts.network.module.parameters()).device
        return TeacherSamples(self.parts.teacher, SampleOrder(prompts, seed), device)

    def draw(
        self,
        rows: Sequence[Row],
        samples: TeacherSamples,
        then: Callable[[Row, Tensor], None] | None = None,
    ) -> None:
        """All rows of one set, with their grids; `then` is shown each row."""
        shown: dict[str, Tensor] = {}
        with self.student.weights_restored():
            for row in rows:
                images_B3HW = self.images(row, samples)
                save_image(square(images_B3HW[:GRID]), self.run.grids / f"{row.key}.png")
                shown[row.label] = images_B3HW[:COLUMNS].clone()
                if then is not None:
                    then(row, images_B3HW)
        prompts = [samples.order.prompt(i) for i in range(min(COLUMNS, self.count))]
        compare = sheet(list(shown.values()), list(shown), prompts, most=MOST)
        save_image(compare, self.run.grids / "compare.png")

    def images(self, row: Row, samples: TeacherSamples) -> Tensor:
        """The pictures of a row, (count, 3, height, width) on the CPU."""
        if row.snapshot is None:
            return self.teacher(samples, row.label)
        self.student.load_snapshot(self.run.snapshot(row.snapshot))
        parts = []
        for ids in batches(self.count, self.recipe.samples.batch):
            parts.append(decode(samples.teacher, generate(self.student, samples, ids, row.steps)))
            self.count_progress.add(len(ids), row.label)
        return torch.cat(parts)

    def teacher(self, samples: TeacherSamples, label: str) -> Tensor:
        """The teacher's pictures of a set, from the cache where the recipe has one.

        A set that a package does not bring is sampled here and not kept.
        """
        cache = evaluation_cache(self.recipe, samples, self.count)
        if cache is not None and cache.missing() and is_shipped(self.recipe.samples):
            cache = None
        if cache is not None:
            for shard in cache.fill(samples, cache.missing()):
                self.count_progress.progress(f"{label}'s samples", shard.stop, self.count, "")
            samples = replace(samples, cache=cache)
        parts = []
        for ids in batches(self.count, self.recipe.samples.batch):
            x_0_BCHW = samples.x_0(ids, samples.x_T(ids), samples.conditions(ids))
            parts.append(decode(samples.teacher, x_0_BCHW))
            self.count_progress.add(len(ids), label)
        return torch.cat(parts)

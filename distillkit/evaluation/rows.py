"""Rows of pictures that a finished run is judged by: teacher, start, and the student's.

All rows are drawn on the same prompts and noise, batch by batch, each with its grid.

Legend: B pictures of a set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.atomic import sha256
from distillkit.contracts import Refinement, Teacher
from distillkit.evaluation.grids import MOST, save_image, sheet, square
from distillkit.evaluation.pictures import PictureFolder
from distillkit.evaluation.sampling import (
    batches,
    decode,
    generate,
    stage_names,
)
from distillkit.randomness import generator
from distillkit.recipe.schema import ModelRecipe, Recipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import (
    evaluation_cache,
    is_shipped,
    prompts_digest,
    weights_digest,
)
from distillkit.samples.fingerprint import KEY, agree
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
    "student_3": "student, 3 steps",
    "student_4": "student, 4 steps",
    "student_1_only": "1-step-only, 1 step",
    "student_1_only_2": "1-step-only, 2 steps",
    "student_1_only_3": "1-step-only, 3 steps",
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
        return LABELS.get(self.key, self.key.replace("_", " "))


def rows_of(refinement: Refinement, seed: int, lengths: Sequence[int]) -> list[Row]:
    """The rows of a run: teacher, start, the last weights at these numbers of steps, and controls.

    The controls are one-step-only weights, run with as many steps: what the later stages changed,
    and what methods of one stage compare with. They need a first stage that trained single steps
    alone, and a later stage to be compared with.
    """
    stages = stage_names(refinement)
    rows = [Row("teacher"), Row("start", "start")]
    rows += [Row(f"student_{k}", stages[-1], k) for k in lengths]
    first = [i for i in range(refinement.iterations) if refinement.stage(i) == stages[0]]
    single = all(refinement.steps(i, generator(seed, "steps", i)) == 1 for i in first)
    if len(stages) > 1 and single:
        rows += [Row(f"student_1_only_{k}".removesuffix("_1"), stages[0], k) for k in lengths]
    return rows


def steps_of(rows: Sequence[Row], teacher_steps: int | None) -> dict[str, int]:
    """How many steps each row is drawn in; the teacher's only where its part tells."""
    steps = {row.key: row.steps for row in rows if row.snapshot is not None}
    return steps if teacher_steps is None else {"teacher": teacher_steps} | steps


@dataclass
class ProgressCount:
    """Counts pictures for the progress bar."""

    progress: Progress = lambda *_: None
    total: int = 0
    what: str = "evaluation"
    done: int = 0

    def add(self, count: int, note: str) -> None:
        """`count` more are there."""
        self.done += count
        self.progress(self.what, self.done, self.total, note)


def row_identity(
    recipe: Recipe | ModelRecipe, teacher: Teacher, samples: TeacherSamples, row: Row, weights: Path
) -> dict[str, Any]:
    """What a row's pictures depend on. `weights`: the student's file, which a teacher's row leaves
    unread."""
    fields = recipe.teacher.model_dump(mode="json", exclude=set(recipe.teacher.same_result))
    which = {
        "teacher": fields | {"weights": weights_digest(teacher)},
        "prompts": prompts_digest(samples.order.prompts),
        "seed": samples.order.seed,
        KEY: samples.fingerprint,
    }
    if row.snapshot is None:
        return which
    student = recipe.student.model_dump(mode="json")
    return which | {"student": student, "weights": sha256(weights), "steps": row.steps}


@dataclass
class Evaluator:
    """Draws rows of `count` pictures, and their grids."""

    recipe: Recipe
    parts: Parts
    run: RunFolder
    count: int
    count_progress: ProgressCount
    drawn: set[str] = field(default_factory=set)
    """Keys of the rows that were drawn in full."""
    identities: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By row, since checksums of weights take a while."""

    def __post_init__(self) -> None:
        schedule = self.parts.teacher.schedule
        self.student = Student.of(self.parts.network, schedule, self.recipe.student)

    def samples(self, prompts: Sequence[str], seed: int) -> TeacherSamples:
        """A set: its prompts and noise."""
        device = next(self.parts.network.module.parameters()).device
        return TeacherSamples(self.parts.teacher, SampleOrder(prompts, seed), device)

    def identity(self, row: Row, samples: TeacherSamples) -> dict[str, Any]:
        """What the row's figures depend on."""
        if row.key not in self.identities:
            config = self.recipe.samples
            weights = self.run.snapshot(row.snapshot or "")
            which = row_identity(self.recipe, self.parts.teacher, samples, row, weights)
            stored = config.dtype if config.cache is not None else None
            which |= {"count": self.count, "batch": config.batch, "stored": stored}
            self.identities[row.key] = which
        return self.identities[row.key]

    def images(self, row: Row, samples: TeacherSamples) -> Tensor:
        """The pictures of a row, (count, 3, height, width) on the CPU; writes its grid.

        The student has the row's weights afterwards.
        """
        self.drawn.add(row.key)
        images_B3HW = self._images(row, samples)
        self._show(row, samples, images_B3HW)
        return images_B3HW

    def complete(self, rows: Sequence[Row], samples: TeacherSamples) -> None:
        """`grids/compare.png`, and the grids of rows that did not have to be drawn."""
        for row in (row for row in rows if row.key not in self.drawn):
            shown = self._shown(row)
            stale = not agree(shown.stated(), self.identity(row, samples)) or shown.missing()
            if stale or not (self.run.grids / f"{row.key}.png").is_file():
                few = replace(self, count=min(GRID, self.count), count_progress=ProgressCount())
                self._show(row, samples, few._images(row, samples))
            self.count_progress.add(self.count, row.label)
        write_compare(self.run.path, rows, samples.order, self.count)

    def _show(self, row: Row, samples: TeacherSamples, images_B3HW: Tensor) -> None:
        """The row's grid, and its first pictures, each in a file."""
        save_image(square(images_B3HW[:GRID]), self.run.grids / f"{row.key}.png")
        shown = self._shown(row)
        shown.claim(self.identity(row, samples))
        for number, picture_3HW in zip(shown.numbers, images_B3HW, strict=False):
            shown.write(number, picture_3HW)

    def _shown(self, row: Row) -> PictureFolder:
        return PictureFolder(self.run.path / "pictures" / row.key, range(min(COLUMNS, self.count)))

    def _images(self, row: Row, samples: TeacherSamples) -> Tensor:
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


def write_compare(folder: Path, rows: Sequence[Row], order: SampleOrder, count: int) -> None:
    """`grids/compare.png` of a run or an evaluation: the first pictures of every row."""
    numbers = range(min(COLUMNS, count))
    pictures = [PictureFolder(folder / "pictures" / row.key, numbers)[:COLUMNS] for row in rows]
    prompts = [order.prompt(i) for i in numbers]
    image = sheet(pictures, [row.label for row in rows], prompts, most=MOST)
    save_image(image, folder / "grids" / "compare.png")

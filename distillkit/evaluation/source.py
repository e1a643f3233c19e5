"""What `distillkit eval` judges: a run's student beside its start and teacher, or a model that is
published or was distilled elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.contracts import Teacher
from distillkit.errors import UserError
from distillkit.evaluation.rows import Row, row_identity
from distillkit.evaluation.sampling import (
    Tell,
    check_family,
    is_model,
    load_student,
    open_model,
    weights_file,
)
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import ModelRecipe
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import prompts_digest, weights_digest
from distillkit.samples.fingerprint import KEY
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import build_part
from distillkit.training.models.student import MAX_STEPS, Student


@dataclass(frozen=True)
class Source:
    """Networks on their device, and the rows that they draw."""

    name: str
    teacher: Teacher
    student: Student
    rows: Sequence[Row]
    files: dict[str, Path]
    """Weights of each student's row; empty where the network has its only ones."""
    recipe: ModelRecipe | None
    batch: int
    teacher_steps: int | None = None
    """Of the teacher's own sampling, where its part tells."""

    def identity(self, row: Row, samples: TeacherSamples) -> dict[str, Any]:
        """What the row's pictures depend on."""
        if self.recipe is not None:
            weights = self.files.get(row.key, Path())
            return row_identity(self.recipe, self.teacher, samples, row, weights)
        return {
            "model": self.name,
            "weights": weights_digest(self.teacher),
            "shift": self.student.timestep_shift,
            "prompts": prompts_digest(samples.order.prompts),
            "seed": samples.order.seed,
            "steps": row.steps,
            KEY: samples.fingerprint,
        }

    def load(self, row: Row) -> None:
        """Put the row's weights into the network."""
        if row.key in self.files:
            self.student.load_snapshot(self.files[row.key])


def open_source(
    source: str,
    steps: Sequence[int],
    *,
    teacher: bool = False,
    weights: str | None = None,
    shift: int | None = None,
    family: str | None = None,
    device: Any = "cpu",
    tell: Tell = lambda _: None,
) -> Source:
    """Open a run, a published folder, or any model with its `weights` or `shift`.

    A run has the rows teacher (where asked for), start, and its newest student at each of `steps`;
    others the last alone. Raises `UserError`.
    """
    for k in steps:
        if not 1 <= k <= MAX_STEPS:
            raise UserError(f"--steps {k}: a student draws in 1 to {MAX_STEPS} steps")
    if is_model(source, weights, shift):
        if teacher:
            raise UserError(
                f"--teacher: {source} is a model without a recipe, so its teacher is unknown; "
                "judge the run, or the teacher's pictures by --reference"
            )
        made, student = open_model(source, weights, shift, family)
        made.to(device)
        rows = [Row(f"student_{k}", "model", k) for k in steps]
        return Source(source, made, student, rows, {}, None, 1)
    check_family(source, family)
    folder = RunFolder(Path(source))
    recipe, parts, student = load_student(folder.path, tell=tell)
    parts.teacher.to(device)
    student.network.module.to(device)
    newest = weights_file(folder, None, lambda _: None)
    rows = [Row("teacher")] if teacher else []
    files = {}
    if "start" in folder.snapshots():
        rows.append(Row("start", "start"))
        files["start"] = folder.snapshot("start")
    rows += [Row(f"student_{k}", newest.stem, k) for k in steps]
    files |= {f"student_{k}": newest for k in steps}
    many = getattr(recipe.teacher, "steps", None)
    return Source(source, parts.teacher, student, rows, files, recipe, recipe.run.batch, many)


def own_prompts(source: str, count: int | None) -> tuple[list[str], int]:
    """The prompts that a run's own metrics are measured on, and their seed. Raises `UserError`."""
    folder = RunFolder(Path(source))
    if not folder.recipe.is_file():
        raise UserError(f"{source} is no run, which would have prompts of its own: give --prompts")
    metrics = load_recipe(folder.recipe).recipe.metrics
    if not metrics:
        raise UserError(f"{source} has no metrics, whose prompts it could be judged on: --prompts")
    first = metrics[0]
    return list(build_part(first).prompts(count or first.num_images, first.seed)), first.seed

"""Models that a page draws with: a run, whose student may still be training, or a published folder.

Legend: H, W pixels of a picture.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Teacher
from distillkit.errors import UserError
from distillkit.evaluation.sampling import (
    decode,
    generate,
    is_model,
    load_student,
    open_model,
    weights_file,
)
from distillkit.runs.folder import RunFolder
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.models.student import Student

ROWS = ("teacher", "start", "student")
NEWEST = "newest"
"""The snapshot that stands for the newest weights, whatever the run has written by now."""


@dataclass(frozen=True)
class Asked:
    """One picture: who draws it, and what."""

    row: str
    """One of `ROWS`."""
    prompt: str
    seed: int = 0
    steps: int = 1
    """Of the student and of the start; the teacher has its own."""
    snapshot: str = NEWEST
    """Of the student's row."""


@dataclass(frozen=True)
class Drawn:
    """A picture, and what is said of it."""

    picture_3HW: Tensor
    seconds: float
    """Encoding, sampling and decoding."""
    command: str
    """The command line that makes it; empty for the teacher's."""


@dataclass
class PlayModel:
    """Networks on their device. Several threads may draw: they take turns, picture by picture."""

    source: str
    teacher: Teacher
    student: Student
    device: Any
    run: RunFolder | None
    """None for a published folder."""
    recipe_teacher: Any = None
    """The recipe's teacher, by which runs of one teacher are known."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _loaded: tuple[Path, int] | None = None

    @staticmethod
    def open(source: str) -> PlayModel:
        """The run or the published folder. Raises `UserError`."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if is_model(source, None, None):
            teacher, student = open_model(source, None, None)
            teacher.to(device)
            return PlayModel(source, teacher, student, device, None)
        recipe, parts, student = load_student(Path(source))
        parts.teacher.to(device)
        student.network.module.to(device)
        folder = RunFolder(Path(source))
        return PlayModel(source, parts.teacher, student, device, folder, recipe.teacher)

    def rows(self) -> list[str]:
        """The rows that it can draw by now."""
        if self.run is None:
            return ["student"]
        return [row for row in ROWS if row != "start" or "start" in self.run.snapshots()]

    def snapshots(self) -> list[str]:
        """Of the student by now, oldest first; the newest weights stand last."""
        return [NEWEST] if self.run is None else [*self.run.snapshots(), NEWEST]

    def finished(self) -> bool:
        """Whether no other weights will come."""
        return self.run is None or self.run.student.is_dir()

    def draw(self, asked: Asked) -> Drawn:
        """The picture. The same seed is the same noise in every row. Raises `UserError`."""
        if asked.row not in self.rows():
            raise UserError(f"{self.source} has no row '{asked.row}': {', '.join(self.rows())}")
        samples = TeacherSamples(self.teacher, SampleOrder([asked.prompt], asked.seed), self.device)
        with self._lock, torch.no_grad():
            if asked.row != "teacher":
                self._load("start" if asked.row == "start" else asked.snapshot)
            start = time.perf_counter()
            if asked.row == "teacher":
                latent = samples.x_0([0], samples.x_T([0]), samples.conditions([0]))
            else:
                latent = generate(self.student, samples, [0], asked.steps)
            picture_3HW = decode(self.teacher, latent)[0]
            seconds = time.perf_counter() - start
        return Drawn(picture_3HW, seconds, self.command(asked))

    def command(self, asked: Asked) -> str:
        """`distillkit sample ...` for the same picture."""
        if asked.row == "teacher":
            return ""
        snapshot = "start" if asked.row == "start" else asked.snapshot
        words = ["distillkit", "sample", self.source, asked.prompt]
        words += ["--steps", str(asked.steps), "--seed", str(asked.seed)]
        words += ["--snapshot", snapshot] if snapshot != NEWEST else []
        return shlex.join([*words, "--out", "picture.png"])

    def _load(self, snapshot: str) -> None:
        """Put the snapshot's weights into the network, if they are not in it."""
        if self.run is None:
            return
        wanted = None if snapshot == NEWEST else snapshot
        file = weights_file(self.run, wanted, lambda _: None)
        stamp = file, file.stat().st_mtime_ns
        if stamp != self._loaded:
            self._loaded = None
            self.student.load_snapshot(file)
            self._loaded = stamp


def listed(models: Sequence[PlayModel]) -> list[dict[str, Any]]:
    """The rows of a page, from top to bottom: the teacher of several runs stands once."""
    rows: list[dict[str, Any]] = []
    teachers: list[Any] = []
    for number, model in enumerate(models):
        for row in model.rows():
            if row == "teacher":
                if model.recipe_teacher in teachers:
                    continue
                teachers.append(model.recipe_teacher)
            name = f"{Path(model.source).name}: {row}" if len(models) > 1 else row
            snapshots = model.snapshots() if row == "student" else []
            rows.append({"model": number, "row": row, "label": name, "snapshots": snapshots})
    return rows

"""What the terminal shows: progress, rate, ETA, losses, the critics' accuracy.

On a terminal one live line; in a log file (no terminal) a plain line now and then.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from distillkit.cli.terminal.console import console
from distillkit.training.callbacks import Callback
from distillkit.training.metrics import StepMetrics

QUIET_SECONDS = 10.0
"""Seconds between lines where there is no terminal."""


@dataclass
class ProgressCallback(Callback):
    """Shows a run in the terminal."""

    console: Console
    quiet: bool = False
    """Print nothing: for the processes beside the main one."""
    smoothing: float = 0.95
    means: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=self.quiet or not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.last_line = 0.0

    @classmethod
    def for_process(cls) -> ProgressCallback:
        """For this process: quiet unless it is the main one of its launch."""
        return cls(console(), quiet=os.environ.get("RANK", "0") != "0")

    def on_resume(self, iteration: int) -> None:
        self.on_message(f"Resuming from iteration {iteration}.")

    def on_message(self, text: str) -> None:
        if not self.quiet:
            self.bar.console.print(text, markup=False, highlight=False)

    def on_progress(self, what: str, done: int, total: int, note: str = "") -> None:
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total, note=note)
        self.bar.update(self.tasks[what], completed=done, total=total, note=note)
        if not self.console.is_terminal and (self._due() or done == total):
            self.on_message(f"{what} {done}/{total}  {note}".rstrip())

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        if metrics.spec.trains_student:
            self._smooth("student", metrics.student)
        if metrics.spec.trains_critic:
            self._smooth("critic", metrics.critic)
        if metrics.mean_accuracy is not None:
            self._smooth("accuracy", metrics.mean_accuracy)
        self._smooth("seconds", seconds)
        self.on_progress("training", i + 1, total, self._note(metrics, total - i - 1))

    def _note(self, metrics: StepMetrics, left: int) -> str:
        parts = [metrics.spec.phase, f"{1 / self.means['seconds']:.1f} it/s"]
        parts += [
            f"{name} {self.means[name]:.3f}" for name in ("student", "critic") if name in self.means
        ]
        if "accuracy" in self.means:
            parts.append(f"critics right {self.means['accuracy']:.0%}")
        if not self.console.is_terminal:
            minutes, rest = divmod(int(left * self.means["seconds"]), 60)
            parts.append(f"ETA {minutes}:{rest:02d}")
        return "  ".join(parts)

    def _smooth(self, name: str, value: float) -> None:
        before = self.means.get(name, value)
        self.means[name] = self.smoothing * before + (1 - self.smoothing) * value

    def _due(self) -> bool:
        if time.monotonic() - self.last_line < QUIET_SECONDS:
            return False
        self.last_line = time.monotonic()
        return True

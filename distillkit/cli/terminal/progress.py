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
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from distillkit.cli.terminal.console import console
from distillkit.training.callbacks import Callback
from distillkit.training.metrics import StepMetrics

QUIET_SECONDS = 10.0
"""Seconds between lines where there is no terminal."""


class RateColumn(ProgressColumn):
    """How many a second, once it is known; training has its own in the note."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.speed) if task.description != TRAINING else "")


TRAINING = "training"
NARROW = 100
"""Columns of a terminal below which the bar makes room for the numbers."""


def rate(speed: float | None) -> str:
    """`12.3/s`, or `6.5 s each` where it is slower than one a second."""
    if not speed:
        return ""
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


@dataclass
class ProgressCallback(Callback):
    """Shows a run in the terminal."""

    console: Console
    quiet: bool = False
    """Print nothing: for the processes beside the main one."""
    smoothing: float = 0.95
    means: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wide = self.console.width >= NARROW
        self.bar = Progress(
            TextColumn("[bold]{task.description}", table_column=Column(no_wrap=True)),
            *([BarColumn(bar_width=24)] if wide else []),
            MofNCompleteColumn(),
            *([TimeElapsedColumn()] if wide else []),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            RateColumn(),
            # The note takes what is left of the line, and is cut there: a line that is wrapped
            # would jump at every update.
            TextColumn(
                "{task.fields[note]}",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            expand=True,
            console=self.console,
            disable=self.quiet or not self.console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.began: dict[str, tuple[float, int]] = {}
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
            self.began[what] = (time.monotonic(), done)
        self.bar.update(self.tasks[what], completed=done, total=total, note=note)
        if not self.console.is_terminal and (self._due() or done == total):
            pace = "" if what == TRAINING else self._pace(what, done, total)
            self.on_message("  ".join(filter(None, (f"{what} {done}/{total}", note, pace))))

    def _pace(self, what: str, done: int, total: int) -> str:
        """Rate and ETA since the first report, whose own work is not counted: it may have been
        there, and models are loaded before it."""
        began, before = self.began[what]
        seconds = time.monotonic() - began
        if done <= before or seconds <= 0:
            return ""
        speed = (done - before) / seconds
        minutes, rest = divmod(int((total - done) / speed), 60)
        return f"{rate(speed)}  ETA {minutes}:{rest:02d}" if done < total else rate(speed)

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        if metrics.spec.trains_student:
            self._smooth("student", metrics.student)
        if metrics.spec.trains_critic:
            self._smooth("critic", metrics.critic)
        if metrics.mean_accuracy is not None:
            self._smooth("accuracy", metrics.mean_accuracy)
        self._smooth("seconds", seconds)
        self.on_progress(TRAINING, i + 1, total, self._note(metrics, total - i - 1))

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

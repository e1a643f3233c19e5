"""What the terminal shows: progress, rate, ETA, losses, the critics' accuracy.

On a terminal one live line; in a log file (no terminal) a plain line now and then.
"""

from __future__ import annotations

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

from distillkit.training.divergence import Outcome
from distillkit.training.trainer import Watcher

QUIET_SECONDS = 10.0
"""Seconds between lines where there is no terminal."""


@dataclass
class Terminal(Watcher):
    """Tells a person at the terminal."""

    console: Console
    quiet: bool = False
    """Says nothing at all: the processes beside the main one."""
    smoothing: float = 0.95
    seen: dict[str, float] = field(default_factory=dict)

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
        self.spoke = 0.0
        self.done = 0

    def cache(self, done: int, total: int) -> None:
        self.count("teacher samples", done, total)

    def resumed(self, iteration: int) -> None:
        self.say(f"Going on after iteration {iteration}.")

    def say(self, text: str) -> None:
        if not self.quiet:
            self.bar.console.print(text, markup=False, highlight=False)

    def count(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` of something are there."""
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total, note=note)
        self.bar.update(self.tasks[what], completed=done, total=total, note=note)
        if not self.console.is_terminal and (self._due() or done == total):
            self.say(f"{what} {done}/{total}  {note}".rstrip())

    def iteration(self, i: int, total: int, outcome: Outcome, seconds: float) -> None:
        if outcome.turn.trains_student:
            self._smooth("student", outcome.student)
        if outcome.turn.trains_critic:
            self._smooth("critic", outcome.critic)
        if outcome.mean_accuracy is not None:
            self._smooth("accuracy", outcome.mean_accuracy)
        self._smooth("seconds", seconds)
        self.count("training", i + 1, total, self._note(outcome, total - i - 1))

    def _note(self, outcome: Outcome, left: int) -> str:
        parts = [outcome.turn.phase, f"{1 / self.seen['seconds']:.1f} it/s"]
        parts += [
            f"{name} {self.seen[name]:.3f}" for name in ("student", "critic") if name in self.seen
        ]
        if "accuracy" in self.seen:
            parts.append(f"critics right {self.seen['accuracy']:.0%}")
        if not self.console.is_terminal:
            minutes, rest = divmod(int(left * self.seen["seconds"]), 60)
            parts.append(f"ETA {minutes}:{rest:02d}")
        return "  ".join(parts)

    def _smooth(self, name: str, value: float) -> None:
        before = self.seen.get(name, value)
        self.seen[name] = self.smoothing * before + (1 - self.smoothing) * value

    def _due(self) -> bool:
        if time.monotonic() - self.spoke < QUIET_SECONDS:
            return False
        self.spoke = time.monotonic()
        return True

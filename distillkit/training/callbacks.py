"""What happens in a run, as events: for the terminal, a notebook, a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distillkit.training.metrics import StepMetrics


class Stopped(Exception):
    """A signal asked the run to stop; the state was saved at `iteration`."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"stopped after iteration {iteration}; continue with --resume")
        self.iteration = iteration


class Callback:
    """Override what is of interest; by default nothing happens. Called on every process."""

    def on_resume(self, iteration: int) -> None:
        """The run resumes after `iteration` iterations."""

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        """Iteration `i` (from 0) of `total` is done."""

    def on_progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` of something are there: teacher samples, pictures to evaluate."""

    def on_message(self, text: str) -> None:
        """A message to the user."""

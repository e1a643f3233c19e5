"""What an iteration came to, and when a run must stop: NaN, or critics that nobody can fool."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit.training.schedule import Turn


class Diverged(UserError):
    """Training went wrong; the last good checkpoint stands."""


@dataclass
class Outcome:
    """Losses (sums over micro-batches, each already divided) and accuracies of an iteration."""

    turn: Turn
    critic: float = 0.0
    student: float = 0.0
    seen: list[dict[str, float]] = field(default_factory=list)

    def see(self, accuracy: dict[str, float]) -> None:
        """Add a micro-batch's accuracies."""
        self.seen.append(accuracy)

    @property
    def accuracy(self) -> dict[str, float]:
        """Pairwise accuracy by view and t*, over the micro-batches."""
        names = {name for part in self.seen for name in part}
        return {name: _mean([p[name] for p in self.seen if name in p]) for name in sorted(names)}

    @property
    def mean_accuracy(self) -> float | None:
        """Pairwise accuracy over all views; None where nobody judged."""
        return _mean(list(self.accuracy.values())) if self.accuracy else None

    def check(self) -> None:
        """Stop before a number that is no number reaches the weights."""
        for player, loss in (("critic", self.critic), ("student", self.student)):
            if not math.isfinite(loss):
                raise Diverged(
                    f"The {player}'s loss is {loss}. Nothing was updated with it; the last good "
                    f"checkpoint stands. Try a lower optim.{player}.lr, a gradient clip "
                    f"(optim.{player}.clip), or run.precision: no."
                )


@dataclass
class Watch:
    """Notices critics that have won: their accuracy, averaged over ~`span` iterations."""

    span: int = 100
    limit: float = 0.995
    state: Tensor = field(default_factory=lambda: torch.tensor([0.5], dtype=torch.float64))

    def see(self, outcome: Outcome) -> None:
        """Take an iteration in; raises `Diverged` when the critics nearly never lose."""
        accuracy = outcome.mean_accuracy
        if accuracy is None or not outcome.turn.trains_student:
            return
        self.state.lerp_(torch.tensor([accuracy], dtype=torch.float64), 1 / self.span)
        if float(self.state) > self.limit:
            raise Diverged(
                f"The critics tell teacher from student {float(self.state):.1%} of the time: they "
                "have won, and the student learns nothing more from them. Try a lower "
                "optim.critic.lr, a higher refresh.fraction, more heads in the pool, or an r1 "
                "penalty on the loss."
            )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

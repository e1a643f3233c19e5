"""Losses and accuracies of an iteration, and when a run must stop: NaN, critics that have won."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit.training.schedule import IterationSpec


class Diverged(UserError):
    """Training went wrong; the last good checkpoint is kept."""


@dataclass
class StepMetrics:
    """Losses and accuracies of an iteration, summed up from its micro-batches."""

    spec: IterationSpec
    _critic: list[Tensor] = field(default_factory=list)
    _student: list[Tensor] = field(default_factory=list)
    _accuracy: list[Mapping[str, Tensor]] = field(default_factory=list)

    def add_critic(self, loss: Tensor, accuracy: Mapping[str, Tensor]) -> None:
        """A micro-batch's share of the critics' loss, and its accuracies by view and t*."""
        self._critic.append(loss)
        self._accuracy.append(accuracy)

    def add_student(self, loss: Tensor) -> None:
        """A micro-batch's share of the student's loss."""
        self._student.append(loss)

    def set_means(self, critic: float, student: float, accuracy: Mapping[str, float]) -> None:
        """Replace this process's values by the means over all processes."""
        self._critic, self._student = [torch.tensor(critic)], [torch.tensor(student)]
        self._accuracy = [{name: torch.tensor(value) for name, value in accuracy.items()}]

    @property
    def critic(self) -> float:
        """The critics' loss."""
        return sum(float(loss) for loss in self._critic)

    @property
    def student(self) -> float:
        """The student's loss."""
        return sum(float(loss) for loss in self._student)

    @property
    def accuracy(self) -> dict[str, float]:
        """Pairwise accuracy by view and t*, the mean over micro-batches."""
        names = sorted({name for part in self._accuracy for name in part})
        return {
            name: _mean([float(part[name]) for part in self._accuracy if name in part])
            for name in names
        }

    @property
    def mean_accuracy(self) -> float | None:
        """Pairwise accuracy over all views; None where there were no logits."""
        accuracy = self.accuracy
        return _mean(list(accuracy.values())) if accuracy else None

    def check_finite(self) -> None:
        """Raise `Diverged` before a loss that is not finite reaches the weights."""
        for player, loss in (("critic", self.critic), ("student", self.student)):
            if not math.isfinite(loss):
                raise Diverged(
                    f"The {player}'s loss is {loss}. Nothing was updated with it; the last good "
                    f"checkpoint is kept. Try a lower optim.{player}.lr, gradient clipping "
                    f"(optim.{player}.clip), or run.precision: no."
                )


@dataclass
class DivergenceMonitor:
    """Stops a run whose critics have won: accuracy, averaged over about `span` iterations."""

    span: int = 100
    limit: float = 0.995
    state: Tensor = field(default_factory=lambda: torch.tensor([0.5], dtype=torch.float64))
    """The running mean; part of a checkpoint."""

    def update(self, metrics: StepMetrics) -> None:
        """Take an iteration in; raises `Diverged` when the critics almost never lose."""
        accuracy = metrics.mean_accuracy
        if accuracy is None or not metrics.spec.trains_student:
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

"""The two ways in which critics fail: they win, which stops a run, or they teach nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.training.metrics import Diverged, StepMetrics

BLIND_ACCURACY, SILENT_LOSS = 0.53, 0.01
"""Below: critics that see nothing. 0.5 is chance; a loss within 1 % of what heads have that always
say 0 has learnt nothing that lowers it."""
NO_GRADIENT = 0.05
"""Below: a gradient that teaches nothing, as a share of the other losses' gradient."""


def teach_nothing(accuracy: float, silent: bool, share: float | None) -> bool:
    """Whether critics tell a student nothing: they see nothing, and hardly pull it either.

    Neither alone is a failure. Where a student keeps up, critics are right half of the time and
    their loss stands at its silent value, while the pictures come nearer (docs/results.md). The
    gradient's direction says nothing either: a teacher's sample is one answer of many.
    """
    return (accuracy < BLIND_ACCURACY or silent) and share is not None and share < NO_GRADIENT


@dataclass
class DivergenceMonitor:
    """Watches running means over about `span` iterations in which both players train."""

    span: int = 100
    limit: float = 0.995
    patience: int = 300
    """Iterations of critics that teach nothing before there is a word about it."""
    state: Tensor = field(
        default_factory=lambda: torch.tensor([0.5, 1.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    )
    """Mean accuracy; mean cosine of the adversarial step with (teacher - student); how many
    iterations critics have taught nothing; mean of the critics' loss over its silent value, of its
    distance to 1, and of the adversarial gradient's share. Part of a checkpoint."""

    def update(self, metrics: StepMetrics) -> str | None:
        """Take an iteration in; returns advice where there is some, once in `patience` iterations.

        Raises `Diverged` when the critics almost never lose.
        """
        accuracy = metrics.mean_accuracy
        if accuracy is None or not metrics.spec.trains_student:
            return None
        self._average(accuracy, metrics)
        if float(self.state[0]) > self.limit:
            raise Diverged(
                f"The critics tell teacher from student {float(self.state[0]):.1%} of the time: "
                "they have won, and the student learns nothing more from them. Try a lower "
                "optim.critic.lr, a faster refresh of heads, more heads in the pool, or a "
                "gradient penalty on the critics' loss."
            )
        return self._advice(metrics.silent)

    def _average(self, accuracy: float, metrics: StepMetrics) -> None:
        """What an iteration does not tell keeps its mean."""
        _, cosine, _, loss, gap, share = self.state.tolist()
        if metrics.silent:
            loss = metrics.critic / metrics.silent
            gap = abs(loss - 1)
        told = (metrics.adversarial_cosine, metrics.adversarial_ratio)
        cosine, share = (
            old if new is None else new for new, old in zip(told, (cosine, share), strict=True)
        )
        means = self.state[[0, 1, 3, 4, 5]]
        seen = torch.tensor([accuracy, cosine, loss, gap, share], dtype=torch.float64)
        self.state[[0, 1, 3, 4, 5]] = means.lerp(seen, 1 / self.span)

    def _advice(self, silent: float | None) -> str | None:
        accuracy, cosine, _, loss, gap, share = self.state.tolist()
        is_silent = silent is not None and gap < SILENT_LOSS
        failed = teach_nothing(accuracy, is_silent, share)
        self.state[2] = self.state[2] + 1 if failed else 0
        if not failed or int(self.state[2]) % self.patience:
            return None
        measured = f"they were right {accuracy:.1%} of the time"
        if is_silent and silent is not None:
            measured += (
                f", their loss was {loss * silent:.3f} where heads that always say 0 have "
                f"{silent:.3f}"
            )
        return (
            f"The critics teach the student little: over the last {self.span} iterations "
            f"{measured}, and their step had cosine {cosine:+.3f} with (teacher - student) and "
            f"{share:.2f} of the other losses' gradient. Try a lower optim.student.lr, a larger "
            "weight of the adversarial loss, more updates in a head's life (refresh), a longer "
            "warmup.critic, or an adversarial loss that compares the pictures of a pair."
        )

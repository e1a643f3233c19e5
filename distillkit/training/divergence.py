"""The two ways in which critics fail: they win, which stops a run, or they teach nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.training.metrics import Diverged, StepMetrics

BLIND_ACCURACY, BLIND_COSINE = 0.53, 0.02
"""Below both, critics tell a student nothing: 0.5 and 0 are chance."""


@dataclass
class DivergenceMonitor:
    """Watches running means over about `span` iterations in which both players train."""

    span: int = 100
    limit: float = 0.995
    patience: int = 300
    """Iterations of blind critics before there is a word about it."""
    state: Tensor = field(
        default_factory=lambda: torch.tensor([0.5, 1.0, 0.0], dtype=torch.float64)
    )
    """Mean accuracy, mean cosine of the adversarial step with (teacher - student), and how many
    iterations critics have been blind; part of a checkpoint."""

    def update(self, metrics: StepMetrics) -> str | None:
        """Take an iteration in; returns advice where there is some, once in `patience` iterations.

        Raises `Diverged` when the critics almost never lose.
        """
        accuracy = metrics.mean_accuracy
        if accuracy is None or not metrics.spec.trains_student:
            return None
        cosine = metrics.adversarial_cosine
        seen = [accuracy, float(self.state[1]) if cosine is None else cosine]
        self.state[:2].lerp_(torch.tensor(seen, dtype=torch.float64), 1 / self.span)
        if float(self.state[0]) > self.limit:
            raise Diverged(
                f"The critics tell teacher from student {float(self.state[0]):.1%} of the time: "
                "they have won, and the student learns nothing more from them. Try a lower "
                "optim.critic.lr, a faster refresh of heads, more heads in the pool, or a "
                "gradient penalty on the critics' loss."
            )
        return self._blind()

    def _blind(self) -> str | None:
        accuracy, cosine = float(self.state[0]), float(self.state[1])
        blind = accuracy < BLIND_ACCURACY and abs(cosine) < BLIND_COSINE
        self.state[2] = self.state[2] + 1 if blind else 0
        if not blind or int(self.state[2]) % self.patience:
            return None
        return (
            f"The critics teach the student little: over the last {self.span} iterations they were "
            f"right {accuracy:.1%} of the time, and their step had cosine {cosine:+.3f} with "
            "(teacher - student). Try a lower optim.student.lr, a larger weight of the adversarial "
            "loss, more updates in a head's life (refresh), or a longer warmup.critic."
        )

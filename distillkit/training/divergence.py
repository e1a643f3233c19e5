"""When a run must stop although nothing is broken: critics that have won."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.training.metrics import Diverged, StepMetrics


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
                "optim.critic.lr, a faster refresh of heads, more heads in the pool, or a "
                "gradient penalty on the critics' loss."
            )

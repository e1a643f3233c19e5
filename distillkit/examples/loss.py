"""An adversarial loss: squared distance of every patch logit to its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import LossConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillkit.contracts import StudentNetwork, Teacher, TrainBatch


@dataclass(frozen=True)
class ExampleLoss:
    """Real logits go to `target`, fake ones to minus it (critic) or to `target` (student)."""

    target: float

    def critic(self, batch: TrainBatch) -> Tensor | None:
        head_logits = batch.critic_logits()
        return _mean(
            [v.real_BK - self.target for v in head_logits]
            + [v.fake_BK + self.target for v in head_logits]
        )

    def student(self, batch: TrainBatch) -> Tensor | None:
        return _mean([v.fake_BK - self.target for v in batch.student_logits()])

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Leaves the heads as they are."""

    def modules(self) -> Sequence[nn.Module]:
        return []


def _mean(gaps: list[Tensor]) -> Tensor | None:
    """Mean square, each judged picture with the same weight; nothing where nobody judges."""
    import torch

    return torch.cat([gap.square().mean(1) for gap in gaps]).mean() if gaps else None


class ExampleLossConfig(LossConfig):
    """Squared distance to a target."""

    type: Literal["example"] = "example"
    target: float = Field(1.0, gt=0)
    """Logit of a picture that is surely the teacher's."""

    def build(self, teacher: Teacher, student: StudentNetwork) -> ExampleLoss:
        return ExampleLoss(self.target)


@hookimpl
def distillkit_register_losses() -> list[type[LossConfig]]:
    return [ExampleLossConfig]

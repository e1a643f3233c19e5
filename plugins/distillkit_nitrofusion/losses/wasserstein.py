"""Wasserstein distance with weight clipping (WGAN, Arjovsky et al. 2017).

Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distillkit_nitrofusion.losses.adversarial import (
    AdversarialConfig,
    AdversarialLoss,
    Objective,
    assert_paired,
)

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.contracts import StudentNetwork, Teacher


def wasserstein_critic(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[D(x_0-hat)] - E[D(x_0)]  (WGAN, algorithm 1, line 5). Unbounded: needs weight clipping."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return fake_BK.mean() - real_BK.mean()


def wasserstein_student(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[D(x_0-hat)]  (WGAN, algorithm 1, line 10)."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return -fake_BK.mean()


class WassersteinConfig(AdversarialConfig):
    """Difference of means, with clipped weights (WGAN)."""

    type: Literal["wasserstein"] = "wasserstein"
    objective: ClassVar[Objective] = Objective(
        critic=wasserstein_critic, student=wasserstein_student
    )
    clip: float = Field(0.01, gt=0)
    """Every weight of a head is clipped to [-clip, clip] after its step (WGAN: 0.01)."""

    def build(self, teacher: Teacher, student: StudentNetwork) -> AdversarialLoss:
        return AdversarialLoss(self.objective, *self.penalties(), self.clip)

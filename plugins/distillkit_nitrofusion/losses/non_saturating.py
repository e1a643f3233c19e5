"""Non-saturating logistic loss (Goodfellow et al. 2014). s is the sigmoid, softplus(x) -log s(-x).

Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distillkit_nitrofusion.losses.adversarial import AdversarialConfig, Objective, assert_paired

if TYPE_CHECKING:
    from torch import Tensor


def non_saturating_critic(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[log s(D(x_0))] - E[log(1 - s(D(x_0-hat)))]  (Goodfellow et al. 2014, equation 1)."""
    from torch.nn.functional import softplus

    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return softplus(-real_BK).mean() + softplus(fake_BK).mean()


def non_saturating_student(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[log s(D(x_0-hat))]  (Goodfellow et al. 2014, section 3)."""
    from torch.nn.functional import softplus

    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return softplus(-fake_BK).mean()


class NonSaturatingConfig(AdversarialConfig):
    """Non-saturating logistic loss, as in SDXL-Lightning and DMD2."""

    type: Literal["non-saturating"] = "non-saturating"
    objective: ClassVar[Objective] = Objective(
        critic=non_saturating_critic, student=non_saturating_student
    )

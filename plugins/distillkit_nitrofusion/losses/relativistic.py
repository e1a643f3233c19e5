"""Relativistic pairing (R3GAN, Huang et al. 2024): logistic loss on the difference of each pair.

Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distillkit_nitrofusion.losses.adversarial import AdversarialConfig, Objective, assert_paired

if TYPE_CHECKING:
    from torch import Tensor


def relativistic_critic(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[softplus(D(x_0-hat) - D(x_0))], pair by pair  (R3GAN, equation 2)."""
    from torch.nn.functional import softplus

    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return softplus(fake_BK - real_BK).mean()


def relativistic_student(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[softplus(D(x_0) - D(x_0-hat))], pair by pair  (R3GAN, equation 2)."""
    from torch.nn.functional import softplus

    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return softplus(real_BK - fake_BK).mean()


class RelativisticPairedConfig(AdversarialConfig):
    """Logistic loss on the difference between a real sample and its fake, as in R3GAN."""

    type: Literal["relativistic-paired"] = "relativistic-paired"
    objective: ClassVar[Objective] = Objective(
        critic=relativistic_critic, student=relativistic_student
    )

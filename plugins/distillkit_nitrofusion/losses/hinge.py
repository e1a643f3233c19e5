"""Hinge (ADD, Sauer et al. 2023): the bounded loss that sections 3.1 and 3.2 mean.

Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distillkit_nitrofusion.losses.adversarial import AdversarialConfig, Objective, assert_paired

if TYPE_CHECKING:
    from torch import Tensor


def hinge_critic(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[max(0, 1 - D(x_0))] + E[max(0, 1 + D(x_0-hat))]  (ADD, equation 3)."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return (1 - real_BK).relu().mean() + (1 + fake_BK).relu().mean()


def hinge_student(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[D(x_0-hat)]  (ADD, equation 2)."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return -fake_BK.mean()


class HingeConfig(AdversarialConfig):
    """Hinge loss, as in ADD: what the paper means, bounded for the critics."""

    type: Literal["hinge"] = "hinge"
    objective: ClassVar[Objective] = Objective(critic=hinge_critic, student=hinge_student)

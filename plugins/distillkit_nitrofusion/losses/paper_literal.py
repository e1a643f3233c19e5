"""The paper's equations exactly as printed in sections 3.1 and 3.2, for study: they diverge.

The printed pair has its superscripts exchanged and a hat lost. The loss that is meant is `hinge`.
Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distillkit_nitrofusion.losses.adversarial import AdversarialConfig, Objective, assert_paired

if TYPE_CHECKING:
    from torch import Tensor


def literal_critic(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[D(x_0)], as printed. The critic never sees a fake, so its bias alone diverges."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return -real_BK.mean()


def literal_student(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[D(x_0-hat) - D(x_0)], as printed. The student lowers the logits that mean "real"."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return (fake_BK - real_BK).mean()


class PaperLiteralConfig(AdversarialConfig):
    """The paper's equations as printed, for study: the critics never see a fake, and diverge."""

    type: Literal["paper-literal"] = "paper-literal"
    objective: ClassVar[Objective] = Objective(critic=literal_critic, student=literal_student)

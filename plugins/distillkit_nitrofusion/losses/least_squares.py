"""Least squares (LSGAN, Mao et al. 2017): targets 1 for real and 0 for fake.

Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distillkit_nitrofusion.losses.adversarial import AdversarialConfig, Objective, assert_paired

if TYPE_CHECKING:
    from torch import Tensor


def least_squares_critic(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """(E[(D(x_0) - 1)^2] + E[D(x_0-hat)^2]) / 2  (LSGAN, equation 9)."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return ((real_BK - 1).square().mean() + fake_BK.square().mean()) / 2


def least_squares_student(*, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[(D(x_0-hat) - 1)^2] / 2  (LSGAN, equation 9)."""
    assert_paired(real_BK=real_BK, fake_BK=fake_BK)
    return (fake_BK - 1).square().mean() / 2


class LeastSquaresConfig(AdversarialConfig):
    """Squared distance to 1 (real) and 0 (fake), as in Flash Diffusion."""

    type: Literal["least-squares"] = "least-squares"
    objective: ClassVar[Objective] = Objective(
        critic=least_squares_critic, student=least_squares_student
    )

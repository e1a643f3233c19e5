"""Regression on the teacher's samples: a warm-up, or an anchor beside an adversarial loss.

The paper starts from one-step weights (section 3.1). A student without them is warmed up as in
DMD2 (Yin et al. 2024). As an anchor it is the distance to the teacher's whole sample of the same
x_T; ADD's distillation term has one denoising of the re-noised student's sample in its place.
Legend: B batch, C channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import Field

from distillkit.configs import LossConfig
from distillkit.remarks import Remark, without_effect

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillkit.contracts import StudentNetwork, Teacher, TrainBatch


class Distance(Protocol):
    """How far the fake samples are from the real ones: a scalar."""

    def __call__(self, *, real_BCHW: Tensor, fake_BCHW: Tensor) -> Tensor:
        """By keyword alone, as the objectives."""
        ...


def mse(*, real_BCHW: Tensor, fake_BCHW: Tensor) -> Tensor:
    """E[(x_0-hat - x_0)^2]."""
    assert fake_BCHW.shape == real_BCHW.shape
    return (fake_BCHW - real_BCHW).square().mean()


def pseudo_huber(*, real_BCHW: Tensor, fake_BCHW: Tensor, c: float) -> Tensor:
    """E_B[sqrt(m + c^2) - c], m the mean squared error of a sample  (iCT, Song & Dhariwal 2024).

    iCT has the squared norm in place of m, and c in proportion to the root of the dimension. Both
    are divided by that root here, so that the loss does not grow with the resolution.
    """
    assert fake_BCHW.shape == real_BCHW.shape
    m_B = (fake_BCHW - real_BCHW).square().flatten(1).mean(1)
    return ((m_B + c**2).sqrt() - c).mean()


class RegressionLoss:
    """`distillkit.contracts.Loss`: the student's distance to the teacher's sample of the same x_T.

    Longer roll-outs add fresh noise between their steps, so that the teacher's sample is one of
    many valid targets; `longest` leaves them out.
    """

    def __init__(self, distance: Distance, longest: int | None = 1) -> None:
        """`longest`: steps of the longest roll-out that has a loss; None for all."""
        self.distance = distance
        self.longest = longest

    def critic(self, batch: TrainBatch) -> None:
        """No term for the critics."""

    def student(self, batch: TrainBatch) -> Tensor | None:
        """Scalar for the student; None for roll-outs that are too long."""
        if self.longest is not None and batch.steps > self.longest:
            return None
        return self.distance(real_BCHW=batch.real_BCHW, fake_BCHW=batch.fake_BCHW)

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """No constraint."""

    def modules(self) -> Sequence[nn.Module]:
        """None."""
        return []


class RegressionConfig(LossConfig):
    """Distance to the teacher's sample from the same noise.

    A warm-up for the student alone, or an anchor beside an adversarial loss.
    """

    type: Literal["regression"] = "regression"
    paired: ClassVar[bool] = True
    uses_critics: ClassVar[bool | None] = False
    norm: Literal["mse", "pseudo-huber"] = "mse"
    """Mean squared error, or the pseudo-Huber distance, which weighs outliers less."""
    c: float = Field(0.00054, gt=0)
    """Where pseudo-Huber turns from square to linear, as a root mean square (iCT: 0.00054)."""
    rollouts: Literal["one-step", "all"] = "one-step"
    """Roll-outs that have this loss. Longer ones add fresh noise between their steps, so that the
    teacher's sample is one of many targets: an anchor in a short run, a blur in a long one."""

    def preflight(self, recipe: Any) -> Iterator[Remark]:
        if self.norm == "mse":
            yield from without_effect(self, "with `norm: mse`", "c")

    def build(self, teacher: Teacher, student: StudentNetwork) -> RegressionLoss:
        distance: Distance = mse if self.norm == "mse" else partial(pseudo_huber, c=self.c)
        return RegressionLoss(distance, longest=1 if self.rollouts == "one-step" else None)

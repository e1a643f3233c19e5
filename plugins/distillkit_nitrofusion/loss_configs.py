"""What a recipe can say of NitroFusion's losses. Imports no torch: `build` does that.

Names and equations stand in `objectives`; the paper prints one objective (`paper-literal`) and
means another (`hinge`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from distillkit.configs import Config, LossConfig

if TYPE_CHECKING:
    from distillkit import contracts


class R1(Config):
    """Approximate R1: the critic pays for changing its mind when a real x_t moves a little."""

    weight: float = Field(100.0, gt=0)
    """Factor of the penalty (APT: 100)."""
    sigma: float = Field(0.01, gt=0)
    """Standard deviation of the noise on the real x_t (APT: 0.01)."""


class Adversarial(LossConfig):
    """What the adversarial losses share."""

    r1: R1 | None = None
    """Approximate R1 penalty of the critics; none leaves it out."""

    def build(
        self, teacher: contracts.Teacher, student: contracts.StudentNetwork
    ) -> contracts.Loss:
        return self.loss(clip=None)

    def loss(self, clip: float | None) -> contracts.Loss:
        """The objective of this `type` on a panel of heads."""
        from distillkit_nitrofusion.adversarial import AdversarialLoss, ApproximateR1
        from distillkit_nitrofusion.objectives import OBJECTIVES

        r1 = None if self.r1 is None else ApproximateR1(self.r1.weight, self.r1.sigma)
        return AdversarialLoss(OBJECTIVES[self.type], r1, clip)


class Hinge(Adversarial):
    """What the paper means: bounded for the critics, as in ADD."""

    type: Literal["hinge"] = "hinge"


class NonSaturating(Adversarial):
    """Logistic loss, as in SDXL-Lightning and DMD2."""

    type: Literal["non-saturating"] = "non-saturating"


class LeastSquares(Adversarial):
    """Squared distance to 1 (real) and 0 (fake), as in Flash Diffusion."""

    type: Literal["least-squares"] = "least-squares"


class Wasserstein(Adversarial):
    """Difference of means, with clipped weights."""

    type: Literal["wasserstein"] = "wasserstein"
    clip: float = Field(0.01, gt=0)
    """Every weight of a head is kept within plus and minus this after its step (WGAN: 0.01)."""

    def build(
        self, teacher: contracts.Teacher, student: contracts.StudentNetwork
    ) -> contracts.Loss:
        return self.loss(self.clip)


class RelativisticPaired(Adversarial):
    """Logistic loss on the difference between a real picture and its fake, as in R3GAN."""

    type: Literal["relativistic-paired"] = "relativistic-paired"


class PaperLiteral(Adversarial):
    """The paper's equations as printed. For study: the critics never see a fake, and diverge."""

    type: Literal["paper-literal"] = "paper-literal"


class Regression(LossConfig):
    """Distance to the teacher's sample from the same noise.

    A warm-up for the student alone, or an anchor beside an adversarial loss.
    """

    type: Literal["regression"] = "regression"
    paired: ClassVar[bool] = True
    norm: Literal["mse", "pseudo-huber"] = "mse"
    """Mean squared error, or the pseudo-Huber distance, which forgives outlying pictures."""
    c: float = Field(0.00054, gt=0)
    """Where pseudo-Huber turns from square to linear, as a root mean square (iCT: 0.00054)."""
    rollouts: Literal["one-step", "all"] = "one-step"
    """Of which roll-outs it speaks. Between the steps of longer ones there is fresh noise, to which
    the teacher's sample is one answer of many: an anchor for few iterations, a blur for many."""

    def build(
        self, teacher: contracts.Teacher, student: contracts.StudentNetwork
    ) -> contracts.Loss:
        from distillkit_nitrofusion.regression import RegressionLoss, mse, pseudo_huber

        distance = mse if self.norm == "mse" else partial(pseudo_huber, c=self.c)
        return RegressionLoss(distance, longest=1 if self.rollouts == "one-step" else None)

"""What DMD2 brings to distillkit: a loss. The GAN term is an adversarial loss beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from distillkit.configs import LossConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillkit import contracts


class DistributionMatchingConfig(LossConfig):
    """Moves the student's pictures from their own score towards the teacher's."""

    type: Literal["distribution-matching"] = "distribution-matching"
    low: int = Field(20, ge=0, le=999)
    """Smallest timestep at which the scores are compared (DMD, section 3.2)."""
    high: int = Field(980, ge=0, le=999)
    """Largest timestep at which the scores are compared."""
    guidance: float = Field(1.0, ge=0)
    """Classifier-free guidance of the teacher's score; up to 1 the null condition is never run."""

    @model_validator(mode="after")
    def _low_is_below_high(self) -> DistributionMatchingConfig:
        if self.low >= self.high:
            raise ValueError(f"`low` ({self.low}) should be below `high` ({self.high})")
        return self

    def build(
        self, teacher: contracts.Teacher, student: contracts.StudentNetwork
    ) -> contracts.Loss:
        from distillkit_dmd2.loss import DistributionMatching

        return DistributionMatching(teacher, self.low, self.high, self.guidance)


@hookimpl
def distillkit_register_losses() -> list[type[LossConfig]]:
    return [DistributionMatchingConfig]

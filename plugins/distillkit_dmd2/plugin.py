"""The name that DMD2 adds to recipes: a loss. Its GAN term is an adversarial loss beside it."""

from __future__ import annotations

from distillkit.configs import LossConfig
from distillkit.hookspecs import hookimpl
from distillkit_dmd2.loss import DistributionMatchingConfig


@hookimpl
def distillkit_register_losses() -> list[type[LossConfig]]:
    return [DistributionMatchingConfig]

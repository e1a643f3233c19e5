"""The names that NitroFusion adds to recipes. Imports no torch: the parts do, when they are built.

"Section" in this package is one of the paper: NitroFusion, Chen et al. 2024.
"""

from __future__ import annotations

from distillkit.configs import LossConfig, PoolConfig, RefinementConfig, RefreshConfig
from distillkit.hookspecs import hookimpl
from distillkit_nitrofusion.losses.hinge import HingeConfig
from distillkit_nitrofusion.losses.least_squares import LeastSquaresConfig
from distillkit_nitrofusion.losses.non_saturating import NonSaturatingConfig
from distillkit_nitrofusion.losses.paper_literal import PaperLiteralConfig
from distillkit_nitrofusion.losses.regression import RegressionConfig
from distillkit_nitrofusion.losses.relativistic import RelativisticPairedConfig
from distillkit_nitrofusion.losses.wasserstein import WassersteinConfig
from distillkit_nitrofusion.pool import DynamicPoolConfig, StaticPoolConfig
from distillkit_nitrofusion.refinement import BottomUpConfig, FixedConfig
from distillkit_nitrofusion.refresh import (
    AccuracyRefreshConfig,
    NeverRefreshConfig,
    OldestRefreshConfig,
    RandomRefreshConfig,
)


@hookimpl
def distillkit_register_pools() -> list[type[PoolConfig]]:
    """Section 3.2, and its ablation (section 4.5)."""
    return [DynamicPoolConfig, StaticPoolConfig]


@hookimpl
def distillkit_register_refreshes() -> list[type[RefreshConfig]]:
    """Section 3.3, and policies to compare it with."""
    return [RandomRefreshConfig, OldestRefreshConfig, AccuracyRefreshConfig, NeverRefreshConfig]


@hookimpl
def distillkit_register_losses() -> list[type[LossConfig]]:
    """Sections 3.1 and 3.2: the loss as it is meant, as it is printed, and its relatives."""
    return [
        HingeConfig,
        NonSaturatingConfig,
        LeastSquaresConfig,
        WassersteinConfig,
        RelativisticPairedConfig,
        PaperLiteralConfig,
        RegressionConfig,
    ]


@hookimpl
def distillkit_register_refinements() -> list[type[RefinementConfig]]:
    """Section 3.5, and a roll-out of one length."""
    return [BottomUpConfig, FixedConfig]

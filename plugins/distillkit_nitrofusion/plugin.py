"""The names that NitroFusion brings to recipes. Imports no torch: configs do that in `build`."""

from __future__ import annotations

from distillkit.configs import LossConfig, PoolConfig, RefinementConfig, RefreshConfig
from distillkit.hookspecs import hookimpl
from distillkit_nitrofusion import configs, loss_configs


@hookimpl
def distillkit_register_pools() -> list[type[PoolConfig]]:
    """Section 3.2, and its ablation."""
    return [configs.DynamicPool, configs.StaticPool]


@hookimpl
def distillkit_register_refreshes() -> list[type[RefreshConfig]]:
    """Section 3.3, and two policies to compare it with."""
    return [configs.RandomRefresh, configs.OldestRefresh, configs.NeverRefresh]


@hookimpl
def distillkit_register_losses() -> list[type[LossConfig]]:
    """What the players minimise (sections 3.1 and 3.2, and what is meant there)."""
    return [
        loss_configs.Hinge,
        loss_configs.NonSaturating,
        loss_configs.LeastSquares,
        loss_configs.Wasserstein,
        loss_configs.RelativisticPaired,
        loss_configs.PaperLiteral,
        loss_configs.Regression,
    ]


@hookimpl
def distillkit_register_refinements() -> list[type[RefinementConfig]]:
    """Section 3.5, and a roll-out of one length."""
    return [configs.BottomUp, configs.Fixed]

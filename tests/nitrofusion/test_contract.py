"""NitroFusion's parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

import pytest

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit_nitrofusion.configs import (
    BottomUp,
    DynamicPool,
    Fixed,
    NeverRefresh,
    OldestRefresh,
    RandomRefresh,
    StaticPool,
)
from distillkit_nitrofusion.loss_configs import R1, Hinge, Regression, Wasserstein
from distillkit_nitrofusion.plugin import distillkit_register_losses

PARTS: list[ComponentConfig] = [
    DynamicPool(width=16, depth=1, timesteps=[10, 500]),
    DynamicPool(width=16, draw="all", levels=[1], zero_init=False),
    StaticPool(width=16),
    RandomRefresh(fraction=0.1),
    OldestRefresh(every=2),
    NeverRefresh(),
    BottomUp(stages={1: 30, 2: 20, 4: 20}),
    Fixed(steps=2, iterations=5),
    Hinge(r1=R1()),
    *(config() for config in distillkit_register_losses()),
]


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_nitrofusion.plugin")


@pytest.mark.parametrize("config", PARTS, ids=lambda config: config.name())
def test_part(config: ComponentConfig) -> None:
    testing.check(config)


@pytest.mark.parametrize(
    "parts",
    [
        (DynamicPool(width=16, depth=1, zero_init=False), RandomRefresh(fraction=0.2), Hinge()),
        (StaticPool(width=16, depth=1), OldestRefresh(), Wasserstein()),
        (BottomUp(stages={1: 2, 2: 2, 4: 2}), Hinge(), Regression(norm="pseudo-huber")),
    ],
    ids=["dynamic", "static", "bottom-up"],
)
def test_a_run(parts: tuple[ComponentConfig, ...]) -> None:
    testing.check_run(*parts)

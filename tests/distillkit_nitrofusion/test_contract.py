"""NitroFusion's parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.training.build import build_parts
from distillkit_nitrofusion.losses.hinge import HingeConfig
from distillkit_nitrofusion.losses.r1 import ApproximateR1Config
from distillkit_nitrofusion.losses.regression import RegressionConfig
from distillkit_nitrofusion.losses.wasserstein import WassersteinConfig
from distillkit_nitrofusion.plugin import distillkit_register_losses
from distillkit_nitrofusion.pool import DynamicPoolConfig, StaticPoolConfig
from distillkit_nitrofusion.refinement import BottomUpConfig, FixedConfig
from distillkit_nitrofusion.refresh import (
    AccuracyRefreshConfig,
    NeverRefreshConfig,
    OldestRefreshConfig,
    RandomRefreshConfig,
)

PARTS: list[ComponentConfig] = [
    DynamicPoolConfig(width=16, depth=1, timesteps=[10, 500]),
    DynamicPoolConfig(width=16, draw="all", levels=[1], zero_init=False),
    DynamicPoolConfig(width=16, depth=1, timesteps=[10, 500], draw="per-picture"),
    DynamicPoolConfig(width=16, depth=1, timesteps=[10, 500], draw_heads="all"),
    DynamicPoolConfig(width=16, timesteps=[10], head="cell"),
    DynamicPoolConfig(width=16, depth=1, timesteps=[10], stride=1, prompt_projection=True),
    DynamicPoolConfig(width=16, timesteps=[10], head="cell", prompt_projection=True),
    DynamicPoolConfig(width=16, timesteps=[10], head="cell", image_logit=True),
    DynamicPoolConfig(width=16, timesteps=[10], prompt_projection=True, image_logit=True),
    StaticPoolConfig(width=16),
    RandomRefreshConfig(fraction=0.1),
    RandomRefreshConfig(updates_per_life=5),
    OldestRefreshConfig(every=2),
    AccuracyRefreshConfig(fraction=0.1),
    NeverRefreshConfig(),
    BottomUpConfig(stages={1: 30, 2: 20, 4: 20}),
    FixedConfig(steps=2, iterations=5),
    HingeConfig(r1=ApproximateR1Config()),
    *(config() for config in distillkit_register_losses()),
]


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_nitrofusion.plugin")


@pytest.mark.parametrize("config", PARTS, ids=lambda config: config.name())
def test_part(config: ComponentConfig) -> None:
    testing.check(config)


class TellingBackboneConfig(ExampleBackboneConfig):
    """The example's, which tells heads the pooled prompt."""

    type: Literal["example"] = "example"

    def build(self, teacher: Any) -> Any:
        backbone: Any = super().build(teacher)
        backbone.pooled_channels, backbone.pooled = 2, lambda cond: cond.tensors["told"]
        return backbone


@pytest.mark.parametrize(
    "parts",
    [
        (
            TellingBackboneConfig(),
            DynamicPoolConfig(width=16, depth=1, zero_init=False, prompt_projection=True),
            HingeConfig(r1=ApproximateR1Config()),
        ),
        (
            DynamicPoolConfig(width=16, depth=1, zero_init=False),
            RandomRefreshConfig(fraction=0.2),
            HingeConfig(),
        ),
        (StaticPoolConfig(width=16, depth=1), OldestRefreshConfig(), WassersteinConfig()),
        (
            DynamicPoolConfig(width=16, depth=1, timesteps=[10, 500], draw="per-picture"),
            RandomRefreshConfig(updates_per_life=2),
            HingeConfig(r1=ApproximateR1Config(), r2=ApproximateR1Config()),
        ),
        (
            DynamicPoolConfig(width=16, depth=1, timesteps=[10, 500], draw_heads="all"),
            AccuracyRefreshConfig(fraction=0.2, min_updates=1),
            HingeConfig(ramp=3),
        ),
        (
            BottomUpConfig(stages={1: 2, 2: 2, 4: 2}),
            HingeConfig(),
            RegressionConfig(norm="pseudo-huber"),
        ),
    ],
    ids=["prompt", "dynamic", "static", "per-picture", "whole slots", "bottom-up"],
)
def test_a_run(parts: tuple[ComponentConfig, ...]) -> None:
    testing.check_run(*parts)


def test_heads_that_see_the_prompt_need_a_backbone_that_tells_it() -> None:
    with pytest.raises(
        UserError,
        match=r"pool 'dynamic' of .* has heads that see the pooled prompt, and ExampleBackbone has "
        r"no `pooled_channels`: take another backbone",
    ):
        build_parts(testing.recipe(DynamicPoolConfig(prompt_projection=True)))

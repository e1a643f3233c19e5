"""What a backbone can get wrong. Each is told in a sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.values import Window
from tests.distillkit.testing.flaws import (
    Flaws,
    flawed,
    rebuilt,
    said_of,
    scribbling,
    table,
)


def features(change: Any) -> ComponentConfig:
    return flawed(ExampleBackboneConfig, features=change)


def adapter(part: Any, *_: Any) -> Any:
    """A layer that trains and is in none of modules()."""
    scale, sound = nn.Parameter(torch.ones(())), part.features
    part.features = lambda *args: [m * scale for m in sound(*args)]
    return part


def borrowed(part: Any, teacher: Any) -> Any:
    part.levels.append(teacher.denoiser.module.requires_grad_(True))
    return part


def random_levels(part: Any, teacher: Any) -> Any:
    part.levels = nn.ModuleList(nn.Conv2d(4, 8, 3, s, padding=1) for s in (1, 1)).requires_grad_(
        False
    )
    return part


def training(part: Any, teacher: Any) -> Any:
    sound = part.features

    def run(*args: Any) -> Any:
        part.levels.train()
        return sound(*args)

    part.features = run
    return part


def meddling(part: Any, teacher: Any) -> Any:
    teacher.denoiser.module.train()
    return part


def short_prompt(part: Any, teacher: Any) -> Any:
    """Fewer channels than it says."""
    part.pooled_channels, part.pooled = 8, lambda cond: cond.tensors["told"][:, :0]
    return part


def unlisted_network(part: Any, teacher: Any) -> Any:
    """A frozen network that is in none of modules()."""
    part.mixes = [nn.Conv2d(8, 8, 1).requires_grad_(False)]
    return part


def doubles_condition(sound: Any, x_BCHW: Any, t_B: Any, cond: Any, window: Any) -> Any:
    cond.tensors["told"].mul_(2)
    return sound(x_BCHW, t_B, cond, window)


BACKBONES: Flaws = {
    "writes into the condition": (
        flawed(ExampleBackboneConfig, features=doubles_condition),
        "features(): wrote into the condition",
    ),
    "no maps": (features(lambda *a: None), "features(): gave NoneType, not a list of maps"),
    "one map": (
        features(lambda s, *a: s(*a)[0]),
        "features(): gave (3, 8, 8, 8), not a list of maps",
    ),
    "no modules": (
        flawed(ExampleBackboneConfig, modules=lambda s: ["levels"]),
        "modules(): gave ['levels'], not a list of networks",
    ),
    "pooled": (rebuilt(ExampleBackboneConfig, short_prompt), "pooled(): gave (3, 0), not (3, 8)"),
    "levels": (flawed(ExampleBackboneConfig, channels=(8,)), "2 maps, but channels has 1 levels"),
    "no levels": (flawed(ExampleBackboneConfig, channels=()), "channels: () are not the channels"),
    "channels": (
        flawed(ExampleBackboneConfig, channels=(8, 9)),
        "level 1 is (3, 8, 4, 4), not (3, 9, h, w)",
    ),
    "number format": (
        features(lambda sound, *a: [m.long() for m in sound(*a)]),
        "features(): level 0 is torch.int64, not real numbers",
    ),
    "detached": (
        features(lambda sound, x, *a: sound(x.detach(), *a)),
        "no gradient reaches x_t from level 0",
    ),
    "batch": (
        features(lambda s, x, *a: s(x + x.mean(), *a)),
        "a picture's maps depend on what else is in its batch",
    ),
    "flaky": (
        features(lambda s, x, *a: s(x + torch.rand(()), *a)),
        "features(): differ between two calls",
    ),
    "in place": (features(scribbling), "features(): wrote into x_t"),
    "unlisted": (
        rebuilt(ExampleBackboneConfig, adapter),
        "modules(): level 0 depends on a parameter that asks for gradients and is in none of them",
    ),
    "unlisted, frozen": (
        rebuilt(ExampleBackboneConfig, unlisted_network),
        "modules(): the network in `mixes` is missing, so that nobody would move it to the device",
    ),
    "the teacher's": (
        rebuilt(ExampleBackboneConfig, borrowed),
        "modules(): a parameter that trains is the teacher's too: copy it",
    ),
    "train mode": (
        rebuilt(ExampleBackboneConfig, training),
        "modules(): its network was put into train mode",
    ),
    "the teacher in train mode": (
        rebuilt(ExampleBackboneConfig, meddling),
        "it changed the teacher: its network was put into train mode",
    ),
    "seed": (
        rebuilt(ExampleBackboneConfig, random_levels),
        "modules(): two processes start with different weights: seed them",
    ),
    "whole latents only": (
        features(lambda s, x, t_B, cond, window: s(x.view(-1, 4, 8, 8), t_B, cond, window)),
        "of crops",
    ),
    "fractional t": (
        features(
            lambda s, x, t_B, *a: s(x + 0 * torch.arange(1000)[t_B].view(-1, 1, 1, 1), t_B, *a)
        ),
        "features() of crops, at fractional t, with the null condition, raised IndexError",
    ),
    "reads a value": (
        features(lambda s, x, *a: s(x, *a) if x.abs().max() > 0 else None),
        "failed in features(): ",
    ),
}


@table(BACKBONES)
def test_a_flaw_of_a_backbone_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_a_backbone_that_sees_pictures_gets_pictures() -> None:
    """Of the teacher's size, in three channels, at t* = 0."""

    def sees(part: Any, teacher: Any) -> Any:
        part.sees_pictures, sound = True, part.features

        def run(x_B3HW: Tensor, t_B: Tensor, *args: Any) -> Any:
            assert x_B3HW.shape[1] == 3
            assert t_B.is_meta or not t_B.any()
            return sound(torch.cat([x_B3HW, x_B3HW[:, :1]], 1), t_B, *args)

        part.features = run
        return part

    testing.check(rebuilt(ExampleBackboneConfig, sees))


def test_a_backbone_of_patches_gets_crops_of_whole_patches() -> None:
    """Of an 8x8 latent in patches of 4: half a side is one patch, at 0 or 4."""

    def patches(part: Any, teacher: Any) -> Any:
        part.cell, sound = 4, part.features

        def run(x_BCHW: Tensor, t_B: Tensor, cond: Any, window: Window) -> Any:
            corners = [*window.top_B.tolist(), *window.left_B.tolist()]
            assert {n % 4 for n in (window.height, window.width, *corners)} == {0}
            return sound(x_BCHW, t_B, cond, window)

        part.features = run
        return part

    backbone = rebuilt(ExampleBackboneConfig, patches)
    testing.check(backbone)
    testing.check_run(backbone)

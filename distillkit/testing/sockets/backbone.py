"""Contract of a backbone. Legend: B batch, C channels, H, W latent cells, h, w cells of a map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillkit.configs import ComponentConfig
from distillkit.contracts import Teacher
from distillkit.testing.building import built
from distillkit.testing.findings import (
    PROMPTS,
    Findings,
    Raised,
    Snapshot,
    calling,
    close,
    each,
    modules_of,
    moved_by_gradient,
    noise,
    same,
    shape_of,
    strangers,
    tensors_of,
    trained,
    unlisted,
    weights_of,
    whole,
)
from distillkit.values import Condition, Window

COUNT = len(PROMPTS)


@dataclass
class _Input:
    """What a backbone is asked with: noisy latents, or pictures where it sees those."""

    x_BCHW: Tensor
    t_B: Tensor
    cond: Condition
    null: Condition


def backbone_findings(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """One map a level with its channels; gradients to x_t; each picture by itself; any window."""
    teachers = Snapshot(taught_by.modules())
    part, twin = (built(config, taught_by, process=p) for p in (1, 2))
    if not same(weights_of(modules_of(part)), weights_of(twin.modules())):
        yield "modules(): two processes start with different weights: seed them"
    yield from unlisted(part.part, [*part.modules(), *taught_by.modules()])
    for module in part.modules():
        module.eval()
    own, given = Snapshot(part.modules()), _input(part, taught_by)
    if not part.channels or not all(type(n) is int and n > 0 for n in part.channels):
        yield f"channels: {part.channels!r} are not the channels of each level"
        return
    yield from each(
        _maps(part, taught_by, given),
        _again(part, given),
        _windows(part, given),
        _pooled(part, given),
        (f"modules(): its {change}" for change in own.changes()),
        (f"it changed the teacher: its {change}" for change in teachers.changes()),
    )


def _input(part: Any, taught_by: Teacher) -> _Input:
    cond = taught_by.encode(PROMPTS)
    null = taught_by.null(COUNT) or cond
    if getattr(part.part, "sees_pictures", False):
        images_B3HW = noise((COUNT, 3, *taught_by.image_size), "x_t").sigmoid()
        return _Input(images_B3HW, torch.zeros(COUNT, dtype=torch.int64), cond, null)
    x_BCHW = noise((COUNT, *taught_by.latent_shape), "x_t")
    return _Input(x_BCHW, torch.tensor([10, 500, 999]), cond, null)


def _features(part: Any, given: _Input, rows: slice = slice(None)) -> Sequence[Tensor]:
    """Maps of whole pictures."""
    x_BCHW = given.x_BCHW[rows]
    window = whole(len(x_BCHW), *x_BCHW.shape[2:])
    maps = part.features(x_BCHW, given.t_B[rows], given.cond[rows], window)
    if not isinstance(maps, list | tuple) or not all(isinstance(m, Tensor) for m in maps):
        raise Raised(f"features(): gave {shape_of(maps)}, not a list of maps")
    return maps


def _maps(part: Any, taught_by: Teacher, given: _Input) -> Findings:
    """Shapes and number formats, and where gradients go."""
    x_BCHW = given.x_BCHW.requires_grad_()
    maps = _features(part, given)
    if len(maps) != len(part.channels):
        yield f"features(): {len(maps)} maps, but channels has {len(part.channels)} levels"
    still = [p for m in part.modules() for p in m.parameters() if not p.requires_grad]
    for level, (map_BChw, channels) in enumerate(zip(maps, part.channels, strict=False)):
        if shape_of(map_BChw)[:2] != (COUNT, channels) or map_BChw.ndim != 4:
            yield f"features(): level {level} is {shape_of(map_BChw)}, not (3, {channels}, h, w)"
            continue
        if not map_BChw.is_floating_point():
            yield f"features(): level {level} is {map_BChw.dtype}, not real numbers"
        x_BCHW.grad = None
        if map_BChw.requires_grad:
            map_BChw.square().sum().backward(retain_graph=True)
        if not moved_by_gradient([x_BCHW]):
            yield f"features(): no gradient reaches x_t from level {level}"
        known = [x_BCHW, *(p for m in part.modules() for p in m.parameters())]
        if strangers(map_BChw, known):
            yield (
                f"modules(): level {level} depends on a parameter that asks for gradients and is "
                "in none of them: it would be neither trained nor saved"
            )
    if any(p.grad is not None for p in still):
        yield "modules(): a frozen parameter got a gradient"
    theirs = {p.data_ptr() for m in taught_by.modules() for p in m.parameters()}
    if any(p.data_ptr() in theirs for p in trained(part.modules())):
        yield "modules(): a parameter that trains is the teacher's too: copy it"


@torch.no_grad()
def _again(part: Any, given: _Input) -> Findings:
    """The same pictures again, and one alone."""
    before, told = given.x_BCHW.detach().clone(), tensors_of(given.cond)
    maps, again = _features(part, given), _features(part, given)
    if not torch.equal(before, given.x_BCHW):
        yield "features(): wrote into x_t"
    elif not same(told, tensors_of(given.cond)):
        yield "features(): wrote into the condition, which student and losses see too"
    elif not all(map(torch.equal, maps, again)):
        yield "features(): differ between two calls with the same input"
    alone = _features(part, given, slice(0, 1))
    if not all(close(m[:1], a) for m, a in zip(maps, alone, strict=True)):
        yield "features(): a picture's maps depend on what else is in its batch"


@torch.no_grad()
def _windows(part: Any, given: _Input) -> Findings:
    """Crops of the pictures, at fractional t, with no prompt."""
    H, W = given.x_BCHW.shape[2:]
    cell = getattr(part.part, "cell", 1)
    h, w = (max(1, side // 2 // cell) * cell for side in (H, W))
    window = Window(torch.tensor([0, H - h, 0]), torch.tensor([0, 0, W - w]), h, w, H, W)
    crops_BChw, t_B = window.crop(given.x_BCHW), (given.t_B * 0.999).float()
    with calling("features() of crops, at fractional t, with the null condition,"):
        maps = part.part.features(crops_BChw, t_B, given.null, window)
    for level, (map_BChw, channels) in enumerate(zip(maps, part.channels, strict=False)):
        if shape_of(map_BChw)[:2] != (COUNT, channels):
            found = f"features(): level {level} of crops is {shape_of(map_BChw)}"
            yield f"{found}, not ({COUNT}, {channels}, h, w)"


def _pooled(part: Any, given: _Input) -> Findings:
    """The prompt as one vector, of a backbone that says it has one."""
    channels = getattr(part.part, "pooled_channels", None)
    if channels is None:
        return
    with calling("pooled()"):
        pooled_BP = part.part.pooled(given.cond)
    if shape_of(pooled_BP) != (COUNT, channels):
        yield f"pooled(): gave {shape_of(pooled_BP)}, not ({COUNT}, {channels})"

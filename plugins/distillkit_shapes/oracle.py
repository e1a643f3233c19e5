"""The oracle: reads a scene back from a picture by rules, without any learning.

Every object is a connected region that differs from the border's median colour. Its outline is
compared with each shape's template, its inside with the palette. What is not clear reads as -1,
so garbled pictures fail instead of being guessed.
Legend: N pictures, C = 3, H = W = 64, A = 9 attributes, K = 3 objects, P = 20 template side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample, max_pool2d

from .pictures import GROUNDS, OUTLINES, PALETTE, SIDE, STRIPE
from .scenes import ATTRIBUTES, SIZES

APART = 0.20
"""RGB distance from the background at which a pixel belongs to an object."""
SPECK = 10
"""Regions of fewer pixels are specks, not objects."""
NEAR = 0.25
"""RGB distance within which a pixel counts as of a palette colour."""
FIT = 0.12
"""Largest mean absolute difference between an outline and its shape's template."""
STRETCH = 0.25
"""Largest log-ratio between an outline's aspect and its shape's."""
TEMPLATE = 20


@dataclass(frozen=True)
class Reading:
    """What the oracle saw: codes_NA int64 as in scenes (-1: unclear) and objects_N int64."""

    codes_NA: Tensor
    objects_N: Tensor


@dataclass(frozen=True)
class Agreement:
    """Pictures against captions: shares in [0, 1]."""

    captions: float
    extra_objects: float
    attributes: dict[str, float]


def read(x_NCHW: Tensor, part: int = 250) -> Reading:
    """Reads pictures with values in [0, 1]; about 1000 a second on two CPU cores."""
    seen = [_read_part(x) for x in x_NCHW.detach().float().split(part)]
    return Reading(torch.cat([r.codes_NA for r in seen]), torch.cat([r.objects_N for r in seen]))


def agreement(x_NCHW: Tensor, codes_NA: Tensor) -> Agreement:
    """How far pictures show what their captions (as codes_NA) say.

    `captions` counts pictures with every attribute right; `extra_objects` (the "Janus" rate)
    those with more objects than said.
    """
    seen = read(x_NCHW)
    right_NA = seen.codes_NA == codes_NA
    said_N = torch.tensor([1, 2, 3, 2])[codes_NA[:, 0]]
    shares = right_NA.float().mean(dim=0).tolist()
    return Agreement(
        right_NA.all(dim=1).float().mean().item(),
        (seen.objects_N > said_N).float().mean().item(),
        dict(zip(ATTRIBUTES, shares, strict=True)),
    )


def _read_part(x_NCHW: Tensor) -> Reading:
    edge_NCP = torch.cat(
        [x_NCHW[:, :, :2].flatten(2), x_NCHW[:, :, -2:].flatten(2),
         x_NCHW[:, :, :, :2].flatten(2), x_NCHW[:, :, :, -2:].flatten(2)], dim=2
    )  # fmt: skip
    ground_NC = edge_NCP.median(dim=2).values
    gap_NG = torch.cdist(ground_NC, GROUNDS)
    background_N = torch.where(gap_NG.amin(1) < 0.15, gap_NG.argmin(1), -1)
    mask_NHW = _mended(_gap(x_NCHW, ground_NC[:, :, None, None]) > APART**2)
    paints = _paints(x_NCHW)
    regions_NKHW, objects_N = _regions(mask_NHW)
    things, centres = [], []
    for k in range(3):
        shape_N, centre_N2 = _outline(regions_NKHW[:, k])
        things.append(torch.stack([shape_N, *_inside(paints, regions_NKHW[:, k])], dim=1))
        centres.append(centre_N2)
    codes_NA = _compose(torch.stack(things, 1), torch.stack(centres, 1), objects_N)
    codes_NA[:, 2] = background_N
    return Reading(codes_NA, objects_N)


def _gap(x_NCHW: Tensor, colour: Tensor) -> Tensor:
    """Squared RGB distance of each pixel from a colour; torch.norm is 30 times slower here."""
    red, green, blue = (x_NCHW - colour).square_().unbind(1)
    return red + green + blue


def _paints(x_NCHW: Tensor) -> Tensor:
    """Which paint each pixel has: 0 to 5 the palette's, 6 the stripe's, 7 none of them."""
    colours = torch.cat([PALETTE, STRIPE[None]])
    gap_N7HW = torch.stack([_gap(x_NCHW, c[:, None, None]) for c in colours], dim=1)
    near, which = gap_N7HW.min(dim=1)
    return torch.where(near < NEAR**2, which, 7)


def _mended(mask_NHW: Tensor) -> Tensor:
    """Closes upright gaps of up to two pixels: where a stripe's edge blends into the background."""
    grown = max_pool2d(mask_NHW[:, None].float(), (3, 1), stride=1, padding=(1, 0))
    return -max_pool2d(-grown, (3, 1), stride=1, padding=(1, 0))[:, 0] > 0.5


def _regions(mask_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """The three largest connected regions, regions_NKHW bool, and the number of all objects.

    Names spread on a grid of half the side, which is faster and bridges single pixels.
    """
    count, half = mask_NHW.shape[0], SIDE // 2
    names = torch.arange(1, half * half + 1, dtype=torch.float32).view(1, 1, half, half)
    coarse = max_pool2d(mask_NHW[:, None].float(), 2)
    label = names * coarse
    for _ in range(half):
        before = label
        for _ in range(4):
            label = max_pool2d(label, 3, stride=1, padding=1) * coarse
        if torch.equal(before, label):
            break
    mask_N1HW = mask_NHW[:, None].float()
    label = label.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) * mask_N1HW
    flat_NP = label.view(count, -1).long()
    area_NR = torch.zeros(count, half * half + 1)
    area_NR = area_NR.scatter_add_(1, flat_NP, mask_N1HW.view(count, -1))
    objects_N = (area_NR >= SPECK).sum(dim=1)
    area_NK, name_NK = area_NR.topk(3, dim=1)
    same = label[:, 0, None] == name_NK[:, :, None, None]
    return same & (area_NK >= SPECK)[:, :, None, None], objects_N


def _bounds(hit_NS: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last index of True along the last dimension, as floats."""
    hit = hit_NS.float()
    return hit.argmax(dim=1).float(), SIDE - hit.flip(1).argmax(dim=1).float()


def _normalised(region_NHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outlines stretched to P x P, centres_N2 (x, y) and log-aspects_N of their boxes."""
    left_N, right_N = _bounds(region_NHW.any(dim=1))
    top_N, bottom_N = _bounds(region_NHW.any(dim=2))
    steps = (torch.arange(TEMPLATE) + 0.5) / TEMPLATE
    x_NP = left_N[:, None] + (right_N - left_N)[:, None] * steps
    y_NP = top_N[:, None] + (bottom_N - top_N)[:, None] * steps
    both = [x_NP[:, None, :].expand(-1, TEMPLATE, -1), y_NP[:, :, None].expand(-1, -1, TEMPLATE)]
    grid = torch.stack(both, dim=-1) * (2 / SIDE) - 1
    stretched = grid_sample(region_NHW[:, None].float(), grid, align_corners=False)[:, 0]
    centre_N2 = torch.stack([left_N + right_N, top_N + bottom_N], dim=1) / 2
    aspect_N = ((right_N - left_N) / (bottom_N - top_N).clamp(min=1)).clamp(min=1e-3).log()
    return stretched, centre_N2, aspect_N


@cache
def _templates() -> tuple[Tensor, Tensor]:
    """Mean normalised outline of each shape, template_SPP, and its mean log-aspect_S."""
    source, draws = Generator().manual_seed(0), 64
    grid = torch.arange(SIDE) + 0.5 - SIDE / 2
    outlines, aspects = [], []
    for outline in OUTLINES:
        shift = torch.rand(draws, 2, 1, 1, generator=source)
        radius = 9 + 6 * torch.rand(draws, 1, 1, generator=source)
        dx, dy = torch.broadcast_tensors(grid - shift[:, 0], grid[:, None] - shift[:, 1])
        stretched, _, aspect_N = _normalised(_mended(outline(dx, dy, radius) < 0.2))
        outlines.append(stretched.mean(dim=0))
        aspects.append(aspect_N.mean())
    return torch.stack(outlines), torch.stack(aspects)


def _outline(region_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """shape_N (-1 where no template fits) and the box's centre_N2."""
    template_SPP, aspect_S = _templates()
    stretched, centre_N2, aspect_N = _normalised(region_NHW)
    gap_NS = (stretched[:, None] - template_SPP).abs().mean(dim=(2, 3))
    shape_N = gap_NS.argmin(dim=1)
    fits = gap_NS.amin(dim=1) < FIT
    fits &= (aspect_N - aspect_S[shape_N]).abs() < STRETCH
    return torch.where(fits, shape_N, -1), centre_N2


def _inside(paint_NHW: Tensor, region_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """colour_N and texture_N of a region, from its pixels one step inside the outline."""
    outside = max_pool2d((~region_NHW)[:, None].float(), 3, stride=1, padding=1)[:, 0]
    inner_NHW = region_NHW & (outside == 0)
    inner_NP = torch.where(inner_NHW, paint_NHW, 8).flatten(1)
    ones = torch.ones((), dtype=torch.int64).expand(inner_NP.shape)
    count_N9 = torch.zeros(len(inner_NP), 9, dtype=torch.int64).scatter_add_(1, inner_NP, ones)
    count_N7 = count_N9[:, :7].float()
    paint_N, white_N = count_N7[:, :6].sum(dim=1), count_N7[:, 6]
    most_N, colour_N = count_N7[:, :6].max(dim=1)
    clear = (most_N >= 0.85 * paint_N) & (most_N > 0)
    clear &= paint_N + white_N >= 0.5 * count_N9[:, :8].sum(dim=1)
    share_N = white_N / (most_N + white_N).clamp(min=1)
    striped = torch.where(share_N > 0.2, 1, torch.where(share_N < 0.08, 0, -1))
    return torch.where(clear, colour_N, -1), torch.where(clear, striped, -1)


def _compose(thing_NK3: Tensor, centre_NK2: Tensor, objects_N: Tensor) -> Tensor:
    """codes_NA of the objects found (background left at -1); unequal crowds read as unclear."""
    offset_N2 = centre_NK2[:, 0] - SIDE / 2
    size_N2 = offset_N2.abs()
    flat = size_N2[:, 0] >= size_N2[:, 1]
    sideways, upright = 1 + (offset_N2[:, 0] > 0).long(), 3 + (offset_N2[:, 1] > 0).long()
    single_N = torch.where(size_N2.amax(1) < 7.25, 0, torch.where(flat, sideways, upright))

    across_N2 = centre_NK2[:, 1] - centre_NK2[:, 0]
    beside = across_N2[:, 0].abs() >= across_N2[:, 1].abs()
    swap = torch.where(beside, across_N2[:, 0], across_N2[:, 1]) < 0
    first_N3 = torch.where(swap[:, None], thing_NK3[:, 1], thing_NK3[:, 0])
    second_N3 = torch.where(swap[:, None], thing_NK3[:, 0], thing_NK3[:, 1])

    equal = (thing_NK3 == thing_NK3[:, :1]).all(dim=2)
    pair = (objects_N == 2) & ~equal[:, 1]
    kind_N = torch.where((objects_N >= 1) & (objects_N <= 3), objects_N - 1, -1)
    kind_N = torch.where(pair, 3, kind_N)
    place_N = torch.where(kind_N == 0, single_N, torch.where(pair, 6 - beside.long(), 7))
    thing_N3 = torch.where(pair[:, None], first_N3, thing_NK3[:, 0])
    mixed = (objects_N == 3)[:, None] & ~(thing_NK3 == thing_NK3[:, :1]).all(dim=1)
    thing_N3 = torch.where(mixed | (objects_N == 0)[:, None], -1, thing_N3)
    none_N3 = torch.tensor([size - 1 for size in SIZES[6:]]).expand_as(second_N3)
    other_N3 = torch.where(pair[:, None], second_N3, none_N3)
    columns = [kind_N[:, None], place_N[:, None], torch.full_like(kind_N, -1)[:, None]]
    return torch.cat([*columns, thing_N3, other_N3], dim=1)

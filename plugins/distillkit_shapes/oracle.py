"""The oracle: reads a scene back from a picture by rules, without learning.

Every object is a connected component that differs from the border's median colour. Its outline is
compared with each shape's template, its inside with the palette. What is ambiguous reads as -1, so
that a garbled picture counts as wrong and is not guessed.
Legend: N pictures, C = 3, H = W = 64, A = 9 attributes, K = 3 objects, S = 6 shapes, P = 20 side of
a template.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample, max_pool2d

from distillkit_shapes.pictures import GROUNDS, OUTLINES, PALETTE, SIDE, STRIPE
from distillkit_shapes.scenes import ATTRIBUTES, KINDS, OBJECTS, SIZES

MIN_CONTRAST = 0.20
"""RGB distance from the background above which a pixel belongs to an object."""
MIN_AREA = 10
"""Pixels of the smallest component that counts as an object."""
MAX_BACKGROUND_ERROR = 0.15
"""RGB distance below which the border's colour counts as one of the backgrounds."""
MAX_COLOUR_ERROR = 0.25
"""RGB distance below which a pixel counts as one of the palette's colours."""
MAX_TEMPLATE_ERROR = 0.12
"""Largest mean absolute difference between an outline and its shape's template."""
MAX_ASPECT_ERROR = 0.25
"""Largest difference between the log-aspect of an outline and its shape's."""
TEMPLATE_SIDE = 20


@dataclass(frozen=True)
class Reading:
    """What the oracle found: codes_NA int64 as in scenes (-1: ambiguous) and objects_N int64."""

    codes_NA: Tensor
    objects_N: Tensor


@dataclass(frozen=True)
class Agreement:
    """Pictures against captions: shares in [0, 1]."""

    captions: float
    extra_objects: float
    attributes: dict[str, float]
    kinds: dict[str, float]
    """`captions` of each kind of caption; NaN for a kind that none has."""
    right_N: Tensor
    """Which pictures have every attribute right."""


def agreement(x_NCHW: Tensor, codes_NA: Tensor) -> Agreement:
    """How far pictures show what their captions (as codes_NA) say.

    `captions` is the share of pictures with every attribute right; `extra_objects` (the "Janus"
    rate) of those with more objects than the caption has.
    """
    found = read(x_NCHW)
    right_NA = found.codes_NA == codes_NA
    right_N = right_NA.all(dim=1)
    kinds = [right_N[codes_NA[:, 0] == k].float().mean().item() for k in range(len(KINDS))]
    expected_N = torch.tensor(OBJECTS)[codes_NA[:, 0]]
    shares = right_NA.float().mean(dim=0).tolist()
    return Agreement(
        right_N.float().mean().item(),
        (found.objects_N > expected_N).float().mean().item(),
        dict(zip(ATTRIBUTES, shares, strict=True)),
        dict(zip(KINDS, kinds, strict=True)),
        right_N,
    )


def read(x_NCHW: Tensor, batch: int = 250) -> Reading:
    """Reads pictures with values in [0, 1]; about 1000 a second on two CPU cores."""
    found = [_read_batch(x) for x in x_NCHW.detach().float().split(batch)]
    return Reading(torch.cat([r.codes_NA for r in found]), torch.cat([r.objects_N for r in found]))


def _read_batch(x_NCHW: Tensor) -> Reading:
    # The background is the median colour of a border of two pixels.
    edge_NCP = torch.cat(
        [x_NCHW[:, :, :2].flatten(2), x_NCHW[:, :, -2:].flatten(2),
         x_NCHW[:, :, :, :2].flatten(2), x_NCHW[:, :, :, -2:].flatten(2)], dim=2
    )  # fmt: skip
    ground_NC = edge_NCP.median(dim=2).values
    gap_NG = torch.cdist(ground_NC, GROUNDS)
    background_N = torch.where(gap_NG.amin(1) < MAX_BACKGROUND_ERROR, gap_NG.argmin(1), -1)
    # Objects are what differs from it: foreground mask, then connected components.
    contrast_NHW = _squared_distance(x_NCHW, ground_NC[:, :, None, None])
    components_NKHW, objects_N = _components(_close_gaps(contrast_NHW > MIN_CONTRAST**2))
    # Shape, colour and texture of each object.
    colour_NHW = _nearest_colour(x_NCHW)
    things, centres = [], []
    for k in range(3):
        shape_N, centre_N2 = _shape_and_centre(components_NKHW[:, k])
        colour_N, texture_N = _colour_and_texture(colour_NHW, components_NKHW[:, k])
        things.append(torch.stack([shape_N, colour_N, texture_N], dim=1))
        centres.append(centre_N2)
    codes_NA = _to_codes(torch.stack(things, 1), torch.stack(centres, 1), objects_N)
    codes_NA[:, 2] = background_N
    return Reading(codes_NA, objects_N)


def _squared_distance(x_NCHW: Tensor, colour: Tensor) -> Tensor:
    """Squared RGB distance of each pixel from a colour; torch.norm is 30 times slower here."""
    red, green, blue = (x_NCHW - colour).square_().unbind(1)
    return red + green + blue


def _nearest_colour(x_NCHW: Tensor) -> Tensor:
    """Which colour each pixel has: 0 to 5 the palette's, 6 the stripe's, 7 none of them."""
    colours = torch.cat([PALETTE, STRIPE[None]])
    gap_N7HW = torch.stack([_squared_distance(x_NCHW, c[:, None, None]) for c in colours], dim=1)
    least, nearest = gap_N7HW.min(dim=1)
    return torch.where(least < MAX_COLOUR_ERROR**2, nearest, 7)


def _close_gaps(mask_NHW: Tensor) -> Tensor:
    """Morphological closing, 3 pixels high: a stripe's edge may blend into the background."""
    dilated = max_pool2d(mask_NHW[:, None].float(), (3, 1), stride=1, padding=(1, 0))
    return -max_pool2d(-dilated, (3, 1), stride=1, padding=(1, 0))[:, 0] > 0.5


def _components(mask_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """The three largest connected components, bool (N, K, H, W), and the number of all objects.

    By label propagation: the highest label of a component spreads over it. On a grid of half the
    side, which is faster and bridges single pixels.
    """
    count, half = mask_NHW.shape[0], SIDE // 2
    labels = torch.arange(1, half * half + 1, dtype=torch.float32).view(1, 1, half, half)
    coarse = max_pool2d(mask_NHW[:, None].float(), 2)
    label = labels * coarse
    for _ in range(half):
        before = label
        for _ in range(4):
            label = max_pool2d(label, 3, stride=1, padding=1) * coarse
        if torch.equal(before, label):
            break
    # Back to full resolution; a component's area is counted in pixels of the mask.
    mask_N1HW = mask_NHW[:, None].float()
    label = label.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) * mask_N1HW
    flat_NP = label.view(count, -1).long()
    area_NR = torch.zeros(count, half * half + 1)
    area_NR = area_NR.scatter_add_(1, flat_NP, mask_N1HW.view(count, -1))
    objects_N = (area_NR >= MIN_AREA).sum(dim=1)
    area_NK, label_NK = area_NR.topk(3, dim=1)
    same = label[:, 0, None] == label_NK[:, :, None, None]
    return same & (area_NK >= MIN_AREA)[:, :, None, None], objects_N


def _bounds(hit_NS: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last index of True along the last dimension, as floats."""
    hit = hit_NS.float()
    return hit.argmax(dim=1).float(), SIDE - hit.flip(1).argmax(dim=1).float()


def _normalised(mask_NHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outlines stretched to P x P, centres_N2 (x, y) and log-aspects_N of their boxes."""
    left_N, right_N = _bounds(mask_NHW.any(dim=1))
    top_N, bottom_N = _bounds(mask_NHW.any(dim=2))
    steps = (torch.arange(TEMPLATE_SIDE) + 0.5) / TEMPLATE_SIDE
    x_NP = left_N[:, None] + (right_N - left_N)[:, None] * steps
    y_NP = top_N[:, None] + (bottom_N - top_N)[:, None] * steps
    both = [
        x_NP[:, None, :].expand(-1, TEMPLATE_SIDE, -1),
        y_NP[:, :, None].expand(-1, -1, TEMPLATE_SIDE),
    ]
    grid = torch.stack(both, dim=-1) * (2 / SIDE) - 1
    stretched = grid_sample(mask_NHW[:, None].float(), grid, align_corners=False)[:, 0]
    centre_N2 = torch.stack([left_N + right_N, top_N + bottom_N], dim=1) / 2
    aspect_N = ((right_N - left_N) / (bottom_N - top_N).clamp(min=1)).clamp(min=1e-3).log()
    return stretched, centre_N2, aspect_N


@cache
def _templates() -> tuple[Tensor, Tensor]:
    """Mean normalised outline of each shape, template_SPP, and its mean log-aspect_S."""
    rng, draws = Generator().manual_seed(0), 64
    grid = torch.arange(SIDE) + 0.5 - SIDE / 2
    outlines, aspects = [], []
    for outline in OUTLINES:
        shift = torch.rand(draws, 2, 1, 1, generator=rng)
        radius = 9 + 6 * torch.rand(draws, 1, 1, generator=rng)
        dx, dy = torch.broadcast_tensors(grid - shift[:, 0], grid[:, None] - shift[:, 1])
        stretched, _, aspect_N = _normalised(_close_gaps(outline(dx, dy, radius) < 0.2))
        outlines.append(stretched.mean(dim=0))
        aspects.append(aspect_N.mean())
    return torch.stack(outlines), torch.stack(aspects)


def _shape_and_centre(mask_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """shape_N (-1 where no template fits) and the box's centre_N2."""
    template_SPP, aspect_S = _templates()
    stretched, centre_N2, aspect_N = _normalised(mask_NHW)
    gap_NS = (stretched[:, None] - template_SPP).abs().mean(dim=(2, 3))
    shape_N = gap_NS.argmin(dim=1)
    fits = gap_NS.amin(dim=1) < MAX_TEMPLATE_ERROR
    fits &= (aspect_N - aspect_S[shape_N]).abs() < MAX_ASPECT_ERROR
    return torch.where(fits, shape_N, -1), centre_N2


def _colour_and_texture(colour_NHW: Tensor, mask_NHW: Tensor) -> tuple[Tensor, Tensor]:
    """colour_N and texture_N of a component, from its pixels one step inside the outline."""
    # Erode by one pixel, and count the pixels of each colour: palette, stripe, none; 8 is outside.
    outside = max_pool2d((~mask_NHW)[:, None].float(), 3, stride=1, padding=1)[:, 0]
    inner_NHW = mask_NHW & (outside == 0)
    inner_NP = torch.where(inner_NHW, colour_NHW, 8).flatten(1)
    ones = torch.ones((), dtype=torch.int64).expand(inner_NP.shape)
    count_N9 = torch.zeros(len(inner_NP), 9, dtype=torch.int64).scatter_add_(1, inner_NP, ones)
    count_N7 = count_N9[:, :7].float()
    coloured_N, white_N = count_N7[:, :6].sum(dim=1), count_N7[:, 6]
    # One colour must prevail, and most pixels must have a known colour.
    most_N, colour_N = count_N7[:, :6].max(dim=1)
    clear = (most_N >= 0.85 * coloured_N) & (most_N > 0)
    clear &= coloured_N + white_N >= 0.5 * count_N9[:, :8].sum(dim=1)
    # Striped with more than 20 % of white, solid with less than 8 %, else ambiguous.
    share_N = white_N / (most_N + white_N).clamp(min=1)
    texture_N = torch.where(share_N > 0.2, 1, torch.where(share_N < 0.08, 0, -1))
    return torch.where(clear, colour_N, -1), torch.where(clear, texture_N, -1)


def _to_codes(thing_NK3: Tensor, centre_NK2: Tensor, objects_N: Tensor) -> Tensor:
    """codes_NA of the objects found, the background left at -1."""
    # Place of a single object: near the centre, or on the side of the larger offset.
    offset_N2 = centre_NK2[:, 0] - SIDE / 2
    size_N2 = offset_N2.abs()
    flat = size_N2[:, 0] >= size_N2[:, 1]
    sideways, upright = 1 + (offset_N2[:, 0] > 0).long(), 3 + (offset_N2[:, 1] > 0).long()
    single_N = torch.where(size_N2.amax(1) < 7.25, 0, torch.where(flat, sideways, upright))

    # Order of a pair: the left or the upper object is the first.
    across_N2 = centre_NK2[:, 1] - centre_NK2[:, 0]
    beside = across_N2[:, 0].abs() >= across_N2[:, 1].abs()
    swap = torch.where(beside, across_N2[:, 0], across_N2[:, 1]) < 0
    first_N3 = torch.where(swap[:, None], thing_NK3[:, 1], thing_NK3[:, 0])
    second_N3 = torch.where(swap[:, None], thing_NK3[:, 0], thing_NK3[:, 1])

    # Kind and place: two unequal objects are a pair.
    equal = (thing_NK3 == thing_NK3[:, :1]).all(dim=2)
    pair = (objects_N == 2) & ~equal[:, 1]
    kind_N = torch.where((objects_N >= 1) & (objects_N <= 3), objects_N - 1, -1)
    kind_N = torch.where(pair, 3, kind_N)
    place_N = torch.where(kind_N == 0, single_N, torch.where(pair, 6 - beside.long(), 7))
    # The things: three unequal objects, or none, are in no caption and read as ambiguous.
    thing_N3 = torch.where(pair[:, None], first_N3, thing_NK3[:, 0])
    mixed = (objects_N == 3)[:, None] & ~(thing_NK3 == thing_NK3[:, :1]).all(dim=1)
    thing_N3 = torch.where(mixed | (objects_N == 0)[:, None], -1, thing_N3)
    none_N3 = torch.tensor([size - 1 for size in SIZES[6:]]).expand_as(second_N3)
    other_N3 = torch.where(pair[:, None], second_N3, none_N3)
    columns = [kind_N[:, None], place_N[:, None], torch.full_like(kind_N, -1)[:, None]]
    return torch.cat([*columns, thing_N3, other_N3], dim=1)

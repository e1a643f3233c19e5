"""Rendering: scenes -> 64x64 pictures by signed distance functions, a few thousand a second.

Legend: N pictures, C = 3 (RGB), H = W = 64 pixels, K = 3 object places, A = 9 attributes.
Pixel values lie in [0, 1]; distances and centres are in pixels, y grows downwards.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from distillkit_shapes.scenes import OBJECTS

SIDE = 64
PALETTE = torch.tensor(
    [
        [0.87, 0.10, 0.12],  # red
        [1.00, 0.55, 0.05],  # orange
        [1.00, 0.92, 0.20],  # yellow
        [0.06, 0.60, 0.20],  # green
        [0.10, 0.25, 0.90],  # blue
        [0.60, 0.12, 0.72],  # purple
    ]
)
"""RGB of scenes.COLOURS."""
GROUNDS = torch.tensor(
    [
        [0.84, 0.75, 0.60],  # sand
        [0.58, 0.80, 0.94],  # sky
        [0.50, 0.50, 0.53],  # stone
        [0.11, 0.11, 0.20],  # night
    ]
)
"""RGB of scenes.BACKGROUNDS."""
STRIPE = torch.tensor([0.97, 0.97, 0.97])
"""RGB of the second colour of striped objects."""
PERIOD = 8.0
"""Height of one coloured and one white stripe together, in pixels."""


def _circle(dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    return torch.hypot(dx, dy) - radius


def _square(dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    return torch.maximum(dx.abs(), dy.abs()) - 0.86 * radius


def _triangle(dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    low = dy - 0.10 * radius
    slope = dx.abs() * math.cos(math.pi / 6) - low * math.sin(math.pi / 6)
    return torch.maximum(low - 0.62 * radius, slope - 0.60 * radius)


def _ring(dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    return (torch.hypot(dx, dy) - 0.71 * radius).abs() - 0.29 * radius


def _star(dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    """Five points: the angle is folded into one half sector, whose outline is a line."""
    sector, rho = math.pi / 5, torch.hypot(dx, dy)
    angle = torch.atan2(dx, -dy).abs() % (2 * sector)
    fold = torch.minimum(angle, 2 * sector - angle)
    along, across = rho * torch.cos(fold), rho * torch.sin(fold)
    outer, inner = 1.10, 0.50
    edge_x, edge_y = inner * math.cos(sector) - outer, inner * math.sin(sector)
    length = math.hypot(edge_x, edge_y)
    return ((along - outer * radius) * edge_y - across * edge_x) / length


def _cross(dx: Tensor, dy: Tensor, radius: Tensor) -> Tensor:
    ax, ay, bar = dx.abs(), dy.abs(), 0.34 * radius
    lying, standing = torch.maximum(ax - radius, ay - bar), torch.maximum(ax - bar, ay - radius)
    return torch.minimum(lying, standing)


OUTLINES = (_circle, _square, _triangle, _ring, _star, _cross)
"""Signed distance to the outline of each of scenes.SHAPES, negative inside, in pixels."""


def place_objects(codes_NA: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Where the objects lie: centre_NK2 (x, y), radius_NK and present_NK (bool).

    Objects never touch each other or the border.
    """
    # All random numbers of a picture, drawn for every layout.
    count, kind_N = codes_NA.shape[0], codes_NA[:, 0]
    jitter_N2 = torch.rand(count, 2, generator=generator) * 2 - 1
    spread_NK = torch.rand(count, 3, generator=generator)
    angle_N = torch.rand(count, generator=generator) * 2 * math.pi
    # Radii: the more objects, the smaller; equal objects share one radius.
    crowd_N = (kind_N == 1) | (kind_N == 2)
    low = torch.tensor([11.0, 9.5, 8.8, 9.5])[kind_N]
    high = torch.tensor([15.0, 11.5, 10.0, 11.5])[kind_N]
    radius_NK = low[:, None] + (high - low)[:, None] * spread_NK
    radius_NK = torch.where(crowd_N[:, None], radius_NK[:, :1], radius_NK)
    # Offsets from the picture's centre, by the kind of the scene.
    offset_NK2 = torch.where(
        crowd_N[:, None, None],
        _crowd_offsets(kind_N, angle_N, spread_NK, jitter_N2),
        _pair_offsets(codes_NA[:, 1], spread_NK, jitter_N2),
    )
    single_N12 = _single_offset(codes_NA[:, 1], spread_NK, jitter_N2)[:, None]
    offset_NK2 = torch.where((kind_N == 0)[:, None, None], single_N12, offset_NK2)
    objects_N = torch.tensor(OBJECTS)[kind_N]
    return offset_NK2 + SIDE / 2, radius_NK, torch.arange(3) < objects_N[:, None]


def _single_offset(place_N: Tensor, spread_NK: Tensor, jitter_N2: Tensor) -> Tensor:
    """Offset of a single object: near the centre, or 11.5 to 14 pixels to one side."""
    sides = torch.tensor([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1], [0, 0], [0, 0], [0, 0]])
    side_N2 = sides[place_N].float()
    return side_N2 * (11.5 + 2.5 * spread_NK[:, 1:2]) + 3.0 * jitter_N2 * (1 - side_N2.abs())


def _crowd_offsets(kind_N: Tensor, angle_N: Tensor, spread_NK: Tensor, jitter_N2: Tensor) -> Tensor:
    """Offsets of equal objects: two opposite each other, three on a triangle, rotated at random."""
    angle_NK = angle_N[:, None] + torch.arange(3) * (2 * math.pi / 3)
    angle_NK[:, 1] = torch.where(kind_N == 1, angle_NK[:, 0] + math.pi, angle_NK[:, 1])
    reach_N11 = torch.where(kind_N == 2, 17.5, 15.0 + 2.0 * spread_NK[:, 2])[:, None, None]
    spot_NK2 = torch.stack([torch.cos(angle_NK), torch.sin(angle_NK)], dim=-1)
    return spot_NK2 * reach_N11 + 1.5 * jitter_N2[:, None]


def _pair_offsets(place_N: Tensor, spread_NK: Tensor, jitter_N2: Tensor) -> Tensor:
    """Offsets of a pair: the first object to the left of the second, or above it."""
    axes = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    along_N2 = axes[(place_N == 5).long()]
    half_N2 = along_N2 * (15.0 + 1.5 * spread_NK[:, 2:])
    half_N2 = half_N2 + 3.0 * jitter_N2.flip(1) * (1 - along_N2)
    return torch.stack([-half_N2, half_N2, half_N2], dim=1) + 1.5 * jitter_N2[:, None]


def render(codes_NA: Tensor, generator: Generator) -> Tensor:
    """Pictures x_NCHW in [0, 1] of scenes; the generator decides what captions leave open."""
    centre_NK2, radius_NK, present_NK = place_objects(codes_NA, generator)
    x_NCHW = GROUNDS[codes_NA[:, 2]][:, :, None, None].expand(-1, 3, SIDE, SIDE)
    for k in range(3):
        # The second object of a pair has attributes of its own; equal objects share the first's.
        pair_N = (codes_NA[:, 0] == 3) & (k == 1)
        thing_N3 = torch.where(pair_N[:, None], codes_NA[:, 6:9], codes_NA[:, 3:6])
        rows = present_NK[:, k].nonzero()[:, 0]
        colour_NCHW, cover_N1HW = _render_object(
            thing_N3[rows], centre_NK2[rows, k], radius_NK[rows, k]
        )
        x_NCHW = x_NCHW.index_copy(0, rows, torch.lerp(x_NCHW[rows], colour_NCHW, cover_N1HW))
    return x_NCHW.contiguous()


def _render_object(thing_N3: Tensor, centre_N2: Tensor, radius_N: Tensor) -> tuple[Tensor, Tensor]:
    """One object's colour_NCHW and coverage_N1HW in [0, 1]."""
    grid = torch.arange(SIDE) + 0.5
    dx = grid[None, None, :] - centre_N2[:, 0, None, None]
    dy = grid[None, :, None] - centre_N2[:, 1, None, None]
    dx, dy = torch.broadcast_tensors(dx, dy)
    # Antialiased coverage: the signed distance falls from 0.5 to -0.5 over one pixel.
    cover_NHW = torch.zeros_like(dx)
    for shape in range(6):
        rows = (thing_N3[:, 0] == shape).nonzero()[:, 0]
        distance = OUTLINES[shape](dx[rows], dy[rows], radius_N[rows, None, None])
        cover_NHW[rows] = (0.5 - distance).clamp(0, 1)
    # Horizontal stripes, antialiased as well.
    phase = (dy / PERIOD + 0.25) % 1.0
    white = (PERIOD * (0.25 - (phase - 0.75).abs()) + 0.5).clamp(0, 1)
    white = white * (thing_N3[:, 2] == 1)[:, None, None]
    colour_NCHW = torch.lerp(
        PALETTE[thing_N3[:, 1]][:, :, None, None], STRIPE[:, None, None], white[:, None]
    )
    return colour_NCHW, cover_NHW[:, None]

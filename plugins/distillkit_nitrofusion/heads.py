"""A discriminator head (section 4): 4x4 convolutions of stride 2, GroupNorm and SiLU.

Legend: B batch, C channels of the backbone's level, D width of the head, h, w cells of a feature
map, K patch logits.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

GROUPS = 8
"""Groups of every GroupNorm. Few, so that a group of a 1x1 map still holds several values."""


class PatchHead(nn.Module):
    """Feature map (B, C, h, w) -> patch logits (B, K); higher means "from the teacher" (section 4).

    `depth` blocks of [conv 4x4, stride 2, pad 1 -> GroupNorm -> SiLU], C -> D -> ... -> D, then a
    1x1 projection. A block halves the map, rounding down. A side of one cell is repeated to two
    before the convolution, so that a 1x1 map stays 1x1 and every weight gets a gradient at any
    size. Blocks of C -> C channels would give SDXL's 480 heads 5.0 billion parameters.

    With `zero_init` the projection starts at zero: a new head gives every picture the logit 0, and
    the student no gradient, while its own projection learns from the first step. So pool refresh
    does not add random gradients to the student's.
    """

    def __init__(self, channels: int, width: int, depth: int, zero_init: bool) -> None:
        super().__init__()
        sizes = [channels] + [width] * depth
        # No bias: the GroupNorm that follows has one.
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1, bias=False)
            for c_in, c_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(depth))
        self.projection = nn.Conv2d(width, 1, 1)
        self.zero_init = zero_init

    def forward(self, feature_BChw: Tensor) -> Tensor:
        """Patch logits (B, K), row by row of the last map."""
        x_BDhw = feature_BChw
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_BDhw = nn.functional.silu(norm(conv(at_least_2x2(x_BDhw))))
        return self.projection(x_BDhw).flatten(1)

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """New weights, in place, from the CPU generator alone."""
        for conv in self.convs:
            draw_weight(conv.weight, generator)
        for norm in self.norms:
            norm.weight.fill_(1)
            norm.bias.fill_(0)
        if self.zero_init:
            self.projection.weight.fill_(0)
        else:
            draw_weight(self.projection.weight, generator)
        self.projection.bias.fill_(0)


def at_least_2x2(x_BChw: Tensor) -> Tensor:
    """A side of one cell repeated to two. `expand`, since padding is not deterministic on CUDA."""
    if x_BChw.shape[2] == 1:
        x_BChw = x_BChw.expand(-1, -1, 2, -1)
    if x_BChw.shape[3] == 1:
        x_BChw = x_BChw.expand(-1, -1, -1, 2)
    return x_BChw


def draw_weight(weight: Tensor, generator: Generator) -> None:
    """Normal with variance 1 / fan-in, drawn on the CPU and copied to the weight's device."""
    fan_in = weight[0].numel()
    weight.copy_(torch.randn(weight.shape, generator=generator) * fan_in**-0.5)


def make_head(
    channels: int, width: int, depth: int, zero_init: bool, generator: Generator
) -> PatchHead:
    """A head with weights from the generator; torch's global generator is not used."""
    head = meta_head(channels, width, depth, zero_init)
    head.to_empty(device="cpu")
    head.initialise(generator)
    return head


def meta_head(channels: int, width: int, depth: int, zero_init: bool) -> PatchHead:
    """A head on the meta device: shapes without data, for `distillkit plan`."""
    with torch.device("meta"):
        return PatchHead(channels, width, depth, zero_init)

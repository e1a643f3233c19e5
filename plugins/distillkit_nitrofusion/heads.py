"""Discriminator heads: the paper's (section 4), LADD's, and for both a projection of the prompt and
a logit of the whole map.

Legend: B batch, C channels of the backbone's level, D width of the head, h, w cells of a feature
map, K patch logits, P channels of the pooled prompt.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import leaky_relu

GROUPS = 8
"""Groups of every GroupNorm. Few, so that a group of a 1x1 map still holds several values."""


class PatchHead(nn.Module):
    """Feature map (B, C, h, w) -> patch logits (B, K); higher means "from the teacher" (section 4).

    `depth` blocks of [conv 4x4, stride 2, pad 1 -> GroupNorm -> SiLU], C -> D -> ... -> D, then a
    1x1 projection. A block halves the map, rounding down; with stride 1 it takes one cell off each
    side. A side of one cell is repeated to two before the convolution, so that a 1x1 map stays 1x1
    and every convolution gets a gradient at any size. Blocks of C -> C channels would give
    SDXL's 480 heads 5.0 billion parameters.

    With `zero_init` the projection starts at zero: a new head gives every picture the logit 0, and
    the student no gradient, while its own projection learns from the first step. So pool refresh
    does not add random gradients to the student's.

    With `pooled` channels it is called with the pooled prompt too (`logits_of`); with `image_logit`
    the logits share one of the whole map (`ImageLogit`).
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        zero_init: bool,
        stride: int = 2,
        pooled: int | None = None,
        image_logit: bool = False,
    ) -> None:
        super().__init__()
        sizes = [channels] + [width] * depth
        # No bias: the GroupNorm that follows has one.
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride, padding=1, bias=False)
            for c_in, c_out in pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(depth))
        self.projection = nn.Conv2d(width, 1, 1)
        self.prompt = nn.Linear(pooled, width, bias=False) if pooled else None
        self.image_logit = ImageLogit(width, zero_init, pooled) if image_logit else None
        self.sees_prompt = pooled is not None
        self.zero_init = zero_init

    def forward(self, feature_BChw: Tensor, pooled_BP: Tensor | None = None) -> Tensor:
        """Logits (B, K), row by row. K depends on the map's size and on `depth`."""
        x_BDhw = feature_BChw
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x_BDhw = nn.functional.silu(norm(conv(at_least_2x2(x_BDhw))))
        return logits_of(x_BDhw, self.projection, self.prompt, self.image_logit, pooled_BP)

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """New weights in place: unit gain for the convolutions, no bias, GroupNorm as identity."""
        for conv in self.convs:
            draw_weight(conv.weight, generator)
        for norm in self.norms:
            norm.weight.fill_(1)
            norm.bias.fill_(0)
        initialise_projection(self.projection, self.prompt, self.zero_init, generator)
        if self.image_logit is not None:
            self.image_logit.initialise(generator)


class CellHead(nn.Module):
    """Feature map (B, C, h, w) -> one logit a cell (B, K = h w): no strides (as in LADD).

    1x1 convolution to D channels -> GroupNorm -> LeakyReLU, `depth` times x + LeakyReLU(3x3 of x),
    then a 1x1 projection. `zero_init`, `pooled` and `image_logit` as in `PatchHead`.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depth: int,
        zero_init: bool,
        pooled: int | None = None,
        image_logit: bool = False,
    ) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.GroupNorm(GROUPS, width)
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.projection = nn.Conv2d(width, 1, 1)
        self.prompt = nn.Linear(pooled, width, bias=False) if pooled else None
        self.image_logit = ImageLogit(width, zero_init, pooled) if image_logit else None
        self.sees_prompt = pooled is not None
        self.zero_init = zero_init

    def forward(self, feature_BChw: Tensor, pooled_BP: Tensor | None = None) -> Tensor:
        """Logits (B, K), row by row."""
        x_BDhw = leaky_relu(self.norm(self.enter(feature_BChw)), 0.2)
        for conv in self.convs:
            x_BDhw = x_BDhw + leaky_relu(conv(x_BDhw), 0.2)
        return logits_of(x_BDhw, self.projection, self.prompt, self.image_logit, pooled_BP)

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """New weights in place: unit gain for the convolutions, no bias, GroupNorm as identity."""
        for conv in (self.enter, *self.convs):
            draw_weight(conv.weight, generator)
        for conv in self.convs:
            conv.bias.fill_(0)
        self.norm.weight.fill_(1)
        self.norm.bias.fill_(0)
        initialise_projection(self.projection, self.prompt, self.zero_init, generator)
        if self.image_logit is not None:
            self.image_logit.initialise(generator)


Head = PatchHead | CellHead


class ImageLogit(nn.Module):
    """Features (B, D, h, w) -> one logit of the whole map (B, 1), which all cells' logits share.

    Mean, maximum and standard deviation of each channel over the cells -> linear to E = 2 D ->
    LeakyReLU -> linear to 1. The image's decision beside that of its parts, as in U-Net GAN
    (Schonfeld et al. 2020).
    """

    def __init__(self, width: int, zero_init: bool, pooled: int | None) -> None:
        super().__init__()
        self.enter = nn.Linear(3 * width, 2 * width)
        self.leave = nn.Linear(2 * width, 1)
        self.prompt = nn.Linear(pooled, 2 * width, bias=False) if pooled else None
        self.zero_init = zero_init

    def forward(self, x_BDhw: Tensor, pooled_BP: Tensor | None) -> Tensor:
        """Logits (B, 1)."""
        x_BDK = x_BDhw.flatten(2)
        moments = [x_BDK.mean(2), x_BDK.amax(2), x_BDK.std(2, correction=0)]
        x_BE = leaky_relu(self.enter(torch.cat(moments, 1)), 0.2)
        logits_B1: Tensor = self.leave(x_BE)
        if self.prompt is None:
            return logits_B1
        prompt_BE = projected(self.prompt, pooled_BP, x_BE.dtype)
        compared_B1 = (x_BE * prompt_BE).sum(1, keepdim=True)
        return logits_B1 + compared_B1 * prompt_BE.shape[1] ** -0.5

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """New weights in place: unit gain and no bias, and what makes logits as in the head."""
        draw_weight(self.enter.weight, generator)
        self.enter.bias.fill_(0)
        initialise_projection(self.leave, self.prompt, self.zero_init, generator)


def logits_of(
    x_BDhw: Tensor,
    projection: nn.Conv2d,
    prompt: nn.Linear | None,
    image: ImageLogit | None,
    pooled_BP: Tensor | None,
) -> Tensor:
    """Logits (B, K): v . x of each cell, x . W c / sqrt(D) where the head sees the prompt, and the
    logit of the whole map where it has one.

    The projection discriminator (Miyato & Koyama 2018), as in StyleGAN-T and ADD.
    """
    logits_BK: Tensor = projection(x_BDhw).flatten(1)
    if prompt is not None:
        prompt_BD = projected(prompt, pooled_BP, x_BDhw.dtype)
        compared_BK = torch.einsum("bdhw,bd->bhw", x_BDhw, prompt_BD).flatten(1)
        logits_BK = logits_BK + compared_BK * prompt_BD.shape[1] ** -0.5
    return logits_BK if image is None else logits_BK + image(x_BDhw, pooled_BP)


def projected(prompt: nn.Linear, pooled_BP: Tensor | None, dtype: torch.dtype) -> Tensor:
    """W c (B, D), for the inner product with features.

    The pooled prompt c is brought to a mean square of 1, so that W's learning rate does not depend
    on its scale.
    """
    assert pooled_BP is not None, "a head that sees the prompt is called with it"
    scale_B1 = pooled_BP.square().mean(1, keepdim=True).add(1e-8).rsqrt()
    prompt_BD: Tensor = prompt((pooled_BP * scale_B1).to(dtype))
    return prompt_BD


def initialise_projection(
    projection: nn.Conv2d | nn.Linear,
    prompt: nn.Linear | None,
    zero_init: bool,
    generator: Generator,
) -> None:
    """New weights of what makes logits: zeros, or normal with unit gain."""
    for weight in (projection.weight, *([prompt.weight] if prompt else [])):
        if zero_init:
            weight.fill_(0)
        else:
            draw_weight(weight, generator)
    assert projection.bias is not None
    projection.bias.fill_(0)


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
    channels: int, width: int, depth: int, zero_init: bool, generator: Generator, **kind: Any
) -> Head:
    """A head with weights from the generator; torch's global generator is not used."""
    head = meta_head(channels, width, depth, zero_init, **kind)
    head.to_empty(device="cpu")
    head.initialise(generator)
    return head


def meta_head(
    channels: int,
    width: int,
    depth: int,
    zero_init: bool,
    *,
    kind: Literal["patch", "cell"] = "patch",
    stride: int = 2,
    pooled: int | None = None,
    image_logit: bool = False,
) -> Head:
    """A head on the meta device: shapes without data, for `distillkit plan`."""
    with torch.device("meta"):
        if kind == "cell":
            return CellHead(channels, width, depth, zero_init, pooled, image_logit)
        return PatchHead(channels, width, depth, zero_init, stride, pooled, image_logit)

"""LADD's critics: one convolutional head a feature level, at continuous noise levels.

Legend: B batch, C channels of a level, D width, h, w cells of a map, K patches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import leaky_relu

from distillkit.randomness import generator as generator_for
from distillkit.values import DrawnHead, JudgedView, Panel, View

WHOLE = View("global-cond", crop=1.0, conditional=True)


class Head(nn.Module):
    """Feature map (B, C, h, w) -> one logit a cell (B, K): 1x1, a residual 3x3, 1x1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 1)
        self.norm = nn.GroupNorm(8, width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 1, 1)

    def forward(self, feature_BChw: Tensor) -> Tensor:
        """Logits (B, K), row by row; higher means "the teacher's"."""
        x_BDhw = leaky_relu(self.norm(self.enter(feature_BChw)), 0.2)
        x_BDhw = x_BDhw + leaky_relu(self.mix(x_BDhw), 0.2)
        return self.leave(x_BDhw).flatten(1)

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """New weights in place: normal with variance 1 / fan-in, biases zero."""
        for conv in (self.enter, self.mix, self.leave):
            fan_in = conv.weight[0].numel()
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * fan_in**-0.5)
            conv.bias.zero_()
        self.norm.reset_parameters()


class LevelPool:
    """Fulfils `distillkit.contracts.Pool`: every head judges every time (LADD, section 3.2)."""

    def __init__(
        self, channels: Sequence[int], width: int, location: float, scale: float, seed: int
    ) -> None:
        self.heads = nn.ModuleList()
        for level, count in enumerate(channels):
            with torch.device("meta"):
                head = Head(count, width)
            head.to_empty(device="cpu")
            head.initialise(generator_for(seed, "head", level))
            self.heads.append(head)
        self.location, self.scale = location, scale

    def draw(self, batch: int, generator: Generator) -> Panel:
        """One look at the whole picture; t / 999 is logit-normal, drawn for every picture."""
        logit_B = self.location + self.scale * torch.randn(batch, generator=generator)
        heads = tuple(DrawnHead(level, level) for level in range(len(self.heads)))
        return Panel((JudgedView(WHOLE, 999 * torch.sigmoid(logit_B), heads),))

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        """New weights for these heads; LADD's recipes never ask for it."""
        for number in heads:
            self.heads[number].initialise(generator)

"""A convolutional discriminator head that judges every cell of a feature map.

Legend: B batch, C channels of a level, D width of the head, h, w cells of a map, K = h * w logits.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import leaky_relu


class CellHead(nn.Module):
    """Feature map (B, C, h, w) -> one logit a cell (B, K): 1x1, a residual 3x3, 1x1."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 1)
        self.norm = nn.GroupNorm(8, width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 1, 1)

    def forward(self, feature_BChw: Tensor) -> Tensor:
        """Logits (B, K), row by row; higher means "from the teacher"."""
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


def make_head(channels: int, width: int, generator: Generator) -> CellHead:
    """A head with weights from the generator; torch's global generator is not used."""
    with torch.device("meta"):
        head = CellHead(channels, width)
    head.to_empty(device="cpu")
    head.initialise(generator)
    return head

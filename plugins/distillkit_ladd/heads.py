"""A convolutional discriminator head that judges every cell of a feature map.

Legend: B batch, C channels of a level, D width of the head, h, w cells of a map, K = h * w logits,
P channels of the pooled prompt.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import layer_norm, leaky_relu


class CellHead(nn.Module):
    """Feature map (B, C, h, w) -> one logit a cell (B, K): 1x1, a residual 3x3, 1x1.

    With `pooled` channels it is called with the pooled prompt too, and adds its inner product with
    each cell's features to the logit (the projection discriminator of StyleGAN-T and ADD).
    """

    def __init__(self, channels: int, width: int, pooled: int | None = None) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, width, 1)
        self.norm = nn.GroupNorm(8, width)
        self.mix = nn.Conv2d(width, width, 3, padding=1)
        self.leave = nn.Conv2d(width, 1, 1)
        self.prompt = nn.Linear(pooled, width, bias=False) if pooled else None
        self.sees_prompt = pooled is not None

    def forward(self, feature_BChw: Tensor, pooled_BP: Tensor | None = None) -> Tensor:
        """Logits (B, K), row by row; higher means "from the teacher"."""
        x_BDhw = leaky_relu(self.norm(self.enter(feature_BChw)), 0.2)
        x_BDhw = x_BDhw + leaky_relu(self.mix(x_BDhw), 0.2)
        logits_BK: Tensor = self.leave(x_BDhw).flatten(1)
        if self.prompt is None or pooled_BP is None:
            return logits_BK
        # A mean square of 1, so that the learning rate does not depend on the encoder's scale.
        prompt_BD = self.prompt(layer_norm(pooled_BP, pooled_BP.shape[1:]).to(x_BDhw.dtype))
        compared_BK = torch.einsum("bdhw,bd->bhw", x_BDhw, prompt_BD).flatten(1)
        return logits_BK + compared_BK * prompt_BD.shape[1] ** -0.5

    @torch.no_grad()
    def initialise(self, generator: Generator) -> None:
        """New weights in place: normal with variance 1 / fan-in, biases zero."""
        for conv in (self.enter, self.mix, self.leave):
            fan_in = conv.weight[0].numel()
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) * fan_in**-0.5)
            conv.bias.zero_()
        if self.prompt is not None:
            drawn = torch.randn(self.prompt.weight.shape, generator=generator)
            self.prompt.weight.copy_(drawn * self.prompt.in_features**-0.5)
        self.norm.reset_parameters()


def make_head(
    channels: int, width: int, generator: Generator, pooled: int | None = None
) -> CellHead:
    """A head with weights from the generator; torch's global generator is not used."""
    with torch.device("meta"):
        head = CellHead(channels, width, pooled)
    head.to_empty(device="cpu")
    head.initialise(generator)
    return head

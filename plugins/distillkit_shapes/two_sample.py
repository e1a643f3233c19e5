"""A classifier two-sample test (Lopez-Paz and Oquab 2017): can a small net tell two sets apart?

It learns on one half of the pairs and is tested on the other. It is asked about pairs: of two
pictures of one caption, which is from the first set? What differs between captions, which is far
more than what differs between a student and its teacher, then drops out of the question.
Legend: N pairs, B pairs of a batch, C = 3, H = W = 64.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import softplus
from torch.optim import AdamW

WIDTHS = (3, 16, 32, 48)
"""Channels before and after each convolution of stride 2."""
EPOCHS, BATCH, LR = 8, 32, 4e-3
"""Passes through the training half, pairs a batch, highest learning rate."""
CROP = 32
"""Side of the crop that a batch is trained on: detail is everywhere, and a quarter costs less."""
WARMUP = 10
"""Updates until the learning rate is at its highest; from there it falls to zero."""


def told_apart(a_NCHW: Tensor, b_NCHW: Tensor, generator: Generator) -> float:
    """Share of held-out pairs of which the net says rightly which is a's: 0.5 is chance.

    The sets hold pictures in [0, 1] of the same captions in the same order. A function of pictures
    and generator alone. From sets of one kind its standard deviation is 0.5 / sqrt(N / 2), 0.016
    for 2,000 pictures. ValueError below 2 pairs.
    """
    if len(a_NCHW) < 2:
        raise ValueError("a two-sample test needs at least two pairs: one to learn, one to test")
    assert a_NCHW.shape == b_NCHW.shape, "two sets of equal size"
    order_N = torch.randperm(len(a_NCHW), generator=generator)
    learnt, tested = order_N[: len(order_N) // 2], order_N[len(order_N) // 2 :]
    net = _trained(a_NCHW, b_NCHW, learnt, generator)
    right = 0.0
    with torch.no_grad():
        for rows in tested.split(100):
            margin_B = net(a_NCHW[rows]) - net(b_NCHW[rows])
            # A pair that the net finds equal counts half: it has to guess.
            right += float((margin_B > 0).sum() + 0.5 * (margin_B == 0).sum())
    return right / len(tested)


def _trained(a_NCHW: Tensor, b_NCHW: Tensor, rows: Tensor, generator: Generator) -> nn.Module:
    """The net after `EPOCHS` passes, in eval. Its loss is a pair's: log(1 + exp(b - a))."""
    net = _net(generator)
    optimizer = AdamW(net.parameters(), lr=LR, betas=(0.9, 0.99), weight_decay=1e-2)
    batches = [
        batch
        for _ in range(EPOCHS)
        for batch in rows[torch.randperm(len(rows), generator=generator)].split(BATCH)
    ]
    for n, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1, (n + 1) / WARMUP) * (1 - n / len(batches))
        pair = _augmented(torch.cat([a_NCHW[batch], b_NCHW[batch]]), generator)
        score_a, score_b = net(pair).chunk(2)
        optimizer.zero_grad()
        softplus(score_b - score_a).mean().backward()
        optimizer.step()
    return net.eval()


def _augmented(x_BCHW: Tensor, generator: Generator) -> Tensor:
    """One crop for the batch, every second time mirrored."""
    height, width = x_BCHW.shape[-2:]
    high, wide = min(CROP, height), min(CROP, width)
    top = int(torch.randint(height - high + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    x_BCHW = x_BCHW[:, :, top : top + high, left : left + wide]
    return x_BCHW.flip(3) if torch.rand((), generator=generator) < 0.5 else x_BCHW


class _Net(nn.Module):
    """Strided convolutions, a mean over the map, one score."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in pairwise(WIDTHS):
            conv = nn.utils.skip_init(nn.Conv2d, before, after, 4, 2, 1, bias=False)
            blocks += [conv, nn.BatchNorm2d(after), nn.LeakyReLU(0.1)]
        self.trunk = nn.Sequential(*blocks)
        self.score = nn.utils.skip_init(nn.Linear, WIDTHS[-1], 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Scores (B,) of pictures in [0, 1]."""
        score_B1: Tensor = self.score(self.trunk(x_BCHW * 2 - 1).mean((2, 3)))
        return score_B1[:, 0]


def _net(generator: Generator) -> _Net:
    """A net with weights from the generator; the global one is not touched."""
    net = _Net()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
    nn.init.zeros_(net.score.weight)
    return net

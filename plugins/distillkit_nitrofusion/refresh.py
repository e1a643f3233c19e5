"""Discriminator pool refresh (paper, section 3.3). Legend: N heads in the pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


def due(iteration: int, every: int, fraction: float, heads: int) -> int:
    """Heads to replace after every `every`-th iteration (the first is 0), none after the others.

    The fraction rounded half up: 1 % of 480 is 5 (section 4). At least one while it is above 0, so
    that a small pool is refreshed too.
    """
    if (iteration + 1) % every or not fraction:
        return 0
    return max(math.floor(fraction * heads + 0.5), 1)


@dataclass(frozen=True)
class RandomRefresh:
    """Any head is replaced with the same chance (section 3.3)."""

    fraction: float
    every: int

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due."""
        count = due(iteration, self.every, self.fraction, len(age_N))
        order_N = torch.randperm(len(age_N), generator=generator)
        return sorted(order_N[:count].tolist())


@dataclass(frozen=True)
class OldestRefresh:
    """The heads that have served longest are replaced; the generator decides between equals.

    Not in the paper: with `random` some heads grow old and some never learn; here all live
    1 / fraction refreshes.
    """

    fraction: float
    every: int

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due."""
        count = due(iteration, self.every, self.fraction, len(age_N))
        order_N = torch.randperm(len(age_N), generator=generator)
        by_age_N = torch.sort(age_N.cpu()[order_N], descending=True, stable=True).indices
        return sorted(order_N[by_age_N[:count]].tolist())


class NeverRefresh:
    """No head is replaced (the ablation "without Pool Refresh", section 4.5)."""

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """No head."""
        return []

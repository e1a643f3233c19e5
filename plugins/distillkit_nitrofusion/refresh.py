"""Discriminator pool refresh (paper, section 3.3). Legend: N heads in the pool."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def how_many(fraction: float, heads: int) -> int:
    """The share as a number of heads, rounded half up: 1 % of 480 is 5 (section 4).

    At least one while the fraction is above 0, so that a small pool is refreshed too.
    """
    return max(math.floor(fraction * heads + 0.5), 1) if fraction > 0 else 0


class RandomRefresh:
    """Any head is replaced with the same chance (section 3.3)."""

    def __init__(self, fraction: float, every: int) -> None:
        self.fraction = fraction
        self.every = every

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Distinct heads, after every `every`-th iteration (the first iteration is 0)."""
        if (iteration + 1) % self.every:
            return []
        order_N = torch.randperm(len(age_N), generator=generator)
        return sorted(order_N[: how_many(self.fraction, len(age_N))].tolist())


class OldestRefresh:
    """The heads that have served longest are replaced; the generator decides between equals.

    Not in the paper: with `random` some heads grow old and some never learn; here all live
    1 / fraction refreshes.
    """

    def __init__(self, fraction: float, every: int) -> None:
        self.fraction = fraction
        self.every = every

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Distinct heads, after every `every`-th iteration (the first iteration is 0)."""
        if (iteration + 1) % self.every:
            return []
        order_N = torch.randperm(len(age_N), generator=generator)
        by_age_N = torch.sort(age_N.cpu()[order_N], descending=True, stable=True).indices
        return sorted(order_N[by_age_N[: how_many(self.fraction, len(age_N))]].tolist())


class NeverRefresh:
    """No head is replaced (the ablation "without Pool Refresh", section 4.5)."""

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """No head."""
        return []

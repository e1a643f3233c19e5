"""Discriminator pool refresh (section 3.3): which heads are re-initialised after an iteration.

Legend: N heads in the pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import RefreshConfig

if TYPE_CHECKING:
    from torch import Generator, Tensor


def count_due(iteration: int, every: int, fraction: float, heads: int) -> int:
    """Heads to reset after every `every`-th iteration (counted from 0); none after the others.

    The fraction is rounded half up: 1 % of 480 is 5 (section 4). At least one head while it is
    above 0, so that a small pool is refreshed too.
    """
    if (iteration + 1) % every or not fraction:
        return 0
    return max(math.floor(fraction * heads + 0.5), 1)


@dataclass(frozen=True)
class RandomRefresh:
    """Every head is reset with the same probability (section 3.3)."""

    fraction: float
    every: int

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due."""
        import torch

        count = count_due(iteration, self.every, self.fraction, len(age_N))
        order_N = torch.randperm(len(age_N), generator=generator)
        return sorted(order_N[:count].tolist())


@dataclass(frozen=True)
class OldestRefresh:
    """The heads of the highest age are reset; ties are broken by the generator.

    Not in the paper. Under `random` some heads are reset late and some before they have learned;
    here every head lives 1 / fraction refreshes.
    """

    fraction: float
    every: int

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due."""
        import torch

        count = count_due(iteration, self.every, self.fraction, len(age_N))
        # Shuffle, then sort stably: heads of one age stay in random order.
        order_N = torch.randperm(len(age_N), generator=generator)
        by_age_N = torch.sort(age_N.cpu()[order_N], descending=True, stable=True).indices
        return sorted(order_N[by_age_N[:count]].tolist())


class NeverRefresh:
    """No head is reset: the ablation without pool refresh (section 4.5)."""

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        """No head."""
        return []


class FractionRefreshConfig(RefreshConfig):
    """The fields of both policies that reset a fraction of the pool."""

    fraction: float = Field(0.01, ge=0, le=1)
    """Fraction of the pool that is reset, rounded to heads, at least one: 5 of 480."""
    every: int = Field(1, ge=1)
    """Iterations (optimizer steps) between refreshes."""


class RandomRefreshConfig(FractionRefreshConfig):
    """The paper's policy: reset a random fraction of the heads (section 3.3)."""

    type: Literal["random"] = "random"

    def build(self) -> RandomRefresh:
        return RandomRefresh(self.fraction, self.every)


class OldestRefreshConfig(FractionRefreshConfig):
    """Reset the heads of the highest age, so that all live equally long."""

    type: Literal["oldest"] = "oldest"

    def build(self) -> OldestRefresh:
        return OldestRefresh(self.fraction, self.every)


class NeverRefreshConfig(RefreshConfig):
    """Keep every head: the ablation without pool refresh (section 4.5)."""

    type: Literal["never"] = "never"

    def build(self) -> NeverRefresh:
        return NeverRefresh()

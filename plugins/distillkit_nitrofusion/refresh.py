"""Discriminator pool refresh (section 3.3): which heads are re-initialised after an iteration.

Legend: N heads in the pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from distillkit.configs import RefreshConfig
from distillkit.remarks import misfit

if TYPE_CHECKING:
    from torch import Generator

    from distillkit.values import HeadStats

PAPER_FRACTION = 0.01
"""Of the pool, every iteration (section 4)."""


def count_due(iteration: int, every: int, fraction: float, heads: int) -> int:
    """Heads to reset after every `every`-th iteration (counted from 0) in which the critic judges.

    What a fraction leaves over is carried: 1 % of 54 heads is one head in 54 of 100 iterations, and
    of 480 heads 4 or 5, 4.8 on average (section 4).
    """
    refreshes, rest = divmod(iteration + 1, every)
    if rest:
        return 0
    due = fraction * heads
    # The tolerance keeps 0.1 * 30 from being 2.9999...
    return math.floor(refreshes * due + 1e-9) - math.floor((refreshes - 1) * due + 1e-9)


@dataclass(frozen=True)
class RandomRefresh:
    """Every head is reset with the same probability (section 3.3)."""

    fraction: float
    every: int

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due."""
        import torch

        count = count_due(iteration, self.every, self.fraction, len(heads))
        order_N = torch.randperm(len(heads), generator=generator)
        return sorted(order_N[:count].tolist())


@dataclass(frozen=True)
class UpdatesRefresh:
    """A head is reset after each of its updates with probability 1 / `updates_per_life`.

    So a life has that many updates on average, whatever the pool's size and draw: the same
    distribution of lives as under a random fraction.
    """

    updates_per_life: float

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """Some of the heads that were just updated."""
        import torch

        chance_N = torch.rand(len(heads), generator=generator, dtype=torch.float64)
        ends_N = heads.learned_N & (chance_N < 1 / self.updates_per_life)
        return ends_N.nonzero().flatten().tolist()


@dataclass(frozen=True)
class OldestRefresh:
    """The heads of the highest age are reset; ties are broken by the generator.

    Not in the paper. Under `random` some heads are reset late and some before they have learned;
    here every head lives 1 / fraction refreshes.
    """

    fraction: float
    every: int

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due."""
        import torch

        count = count_due(iteration, self.every, self.fraction, len(heads))
        # Shuffle, then sort stably: heads of one age stay in random order.
        order_N = torch.randperm(len(heads), generator=generator)
        by_age_N = torch.sort(heads.age_N[order_N], descending=True, stable=True).indices
        return sorted(order_N[by_age_N[:count]].tolist())


@dataclass(frozen=True)
class AccuracyRefresh:
    """The heads that rank real above fake least often, or most often, are reset.

    Not in the paper, which resets at random. `lowest` replaces heads that see nothing; `highest`
    those that the student can't fool. Heads are judged once they have had `min_updates`.
    """

    fraction: float
    every: int
    replace: Literal["lowest", "highest"]
    min_updates: int

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """Distinct heads, as many as are due and old enough."""
        import torch

        count = count_due(iteration, self.every, self.fraction, len(heads))
        known_N = (heads.updates_N >= self.min_updates) & ~heads.accuracy_N.isnan()
        candidates = known_N.nonzero().flatten()
        # Shuffle, then sort stably: heads of one accuracy stay in random order.
        candidates = candidates[torch.randperm(len(candidates), generator=generator)]
        accuracy = heads.accuracy_N[candidates]
        order = torch.sort(accuracy, descending=self.replace == "highest", stable=True).indices
        return sorted(candidates[order[:count]].tolist())


class NeverRefresh:
    """No head is reset: the ablation without pool refresh (section 4.5)."""

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """No head."""
        return []


class FractionRefreshConfig(RefreshConfig):
    """The fields of the policies that reset a fraction of the pool."""

    fraction: float = Field(PAPER_FRACTION, ge=0, le=1)
    """Fraction of the pool that is reset; what it leaves over is carried to the next refresh."""
    every: int = Field(1, ge=1)
    """Iterations (optimizer steps) of this critic between refreshes."""

    def reset_chance(self, draw_chance: float) -> float | None:
        return self.fraction / self.every


class RandomRefreshConfig(FractionRefreshConfig):
    """The paper's policy: reset a random fraction of the heads (section 3.3)."""

    type: Literal["random"] = "random"
    updates_per_life: float | None = Field(None, ge=1)
    """In the place of `fraction` and `every`: how often a head is trained before it is reset, on
    average."""

    @model_validator(mode="after")
    def _one_measure(self) -> RandomRefreshConfig:
        if self.updates_per_life is not None:
            for field, default in (("fraction", PAPER_FRACTION), ("every", 1)):
                if getattr(self, field) != default:
                    raise misfit(f"replaces `{field}`; give one of them", "updates_per_life")
        return self

    def reset_chance(self, draw_chance: float) -> float | None:
        if self.updates_per_life is None:
            return self.fraction / self.every
        return draw_chance / self.updates_per_life

    def build(self) -> RandomRefresh | UpdatesRefresh:
        if self.updates_per_life is not None:
            return UpdatesRefresh(self.updates_per_life)
        return RandomRefresh(self.fraction, self.every)


class OldestRefreshConfig(FractionRefreshConfig):
    """Reset the heads of the highest age, so that all live equally long."""

    type: Literal["oldest"] = "oldest"

    def build(self) -> OldestRefresh:
        return OldestRefresh(self.fraction, self.every)


class AccuracyRefreshConfig(FractionRefreshConfig):
    """Reset the heads that tell real from fake least often, or most often."""

    type: Literal["accuracy"] = "accuracy"
    replace: Literal["lowest", "highest"] = "lowest"
    """Which heads: those that see least, or those that the student can't fool."""
    min_updates: int = Field(20, ge=1)
    """Updates before a head can be reset: accuracies of fewer say little."""

    def build(self) -> AccuracyRefresh:
        return AccuracyRefresh(self.fraction, self.every, self.replace, self.min_updates)


class NeverRefreshConfig(RefreshConfig):
    """Keep every head: the ablation without pool refresh (section 4.5)."""

    type: Literal["never"] = "never"

    def reset_chance(self, draw_chance: float) -> float | None:
        return 0.0

    def build(self) -> NeverRefresh:
        return NeverRefresh()

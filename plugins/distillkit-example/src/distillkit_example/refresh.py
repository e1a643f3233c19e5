"""Round-robin refresh: heads are reset one after the other, so that no head gets old.

The part is written first, its config below. What needs torch at run time imports it inside a
method. Legend: N heads in the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import RefreshConfig

if TYPE_CHECKING:
    from torch import Generator

    from distillkit.values import HeadStats


@dataclass(frozen=True)
class RoundRobinRefresh:
    """The part. It fulfils the protocol `distillkit.contracts.Refresh`, and subclasses nothing."""

    every: int

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        """The head to reset after this iteration, in the order of the pool; often none."""
        resets, remainder = divmod(iteration + 1, self.every)
        return [] if remainder else [(resets - 1) % len(heads)]


class RoundRobinRefreshConfig(RefreshConfig):
    """Replace one head after the other."""

    # The line above is what `distillkit plugins list` shows; `type` is the name in recipes.
    type: Literal["round-robin"] = "round-robin"
    # A field has a type, a bound, and a docstring, which `distillkit plugins show` prints.
    every: int = Field(1, ge=1)
    """Iterations between two resets."""

    def build(self) -> RoundRobinRefresh:
        return RoundRobinRefresh(self.every)

"""What LADD brings to distillkit: a pool. Backbone, loss and students are anybody's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import PoolConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from distillkit import contracts


class ContinuousPool(PoolConfig):
    """LADD's critics: one head a level, judging at noise levels drawn anew for every picture."""

    type: Literal["continuous"] = "continuous"
    location: float = 0.0
    """Mean of the logit of t / 999: 0 favours middle noise, 1 more of it (LADD, section 3.2)."""
    scale: float = Field(1.0, gt=0)
    """Standard deviation of that logit."""
    width: int = Field(64, ge=16, multiple_of=8)
    """Channels inside a head."""

    def build(self, channels: tuple[int, ...], seed: int) -> contracts.Pool:
        from distillkit_ladd.pool import LevelPool

        return LevelPool(channels, self.width, self.location, self.scale, seed)


@hookimpl
def distillkit_register_pools() -> list[type[PoolConfig]]:
    return [ContinuousPool]

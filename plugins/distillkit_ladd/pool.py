"""LADD's discriminator: one head a feature level, at continuous noise levels. Legend: B batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit.configs import PoolConfig
from distillkit.randomness import generator as keyed_generator
from distillkit.remarks import PoolSize, Remark, describe_levels
from distillkit.values import DrawnHead, JudgedView, Panel, View

if TYPE_CHECKING:
    from torch import Generator

WHOLE = View("global-cond", crop=1.0, conditional=True)
"""The only view: the whole picture, with its prompt."""


class ContinuousPool:
    """`distillkit.contracts.Pool`: every head judges in every iteration (LADD, section 3.2)."""

    def __init__(
        self, channels: Sequence[int], *, width: int, location: float, scale: float, seed: int
    ) -> None:
        from torch import nn

        from distillkit_ladd.heads import make_head

        self.location, self.scale = location, scale
        self.heads = nn.ModuleList(
            make_head(channels_of_level, width, keyed_generator(seed, "head", level))
            for level, channels_of_level in enumerate(channels)
        )

    def draw(self, batch: int, generator: Generator) -> Panel:
        """logit(t / 999) ~ N(location, scale^2), drawn anew for every picture of the batch."""
        import torch

        logit_B = self.location + self.scale * torch.randn(batch, generator=generator)
        heads = tuple(DrawnHead(level, level) for level in range(len(self.heads)))
        return Panel((JudgedView(WHOLE, 999 * torch.sigmoid(logit_B), heads),))

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        """New weights for these heads. LADD has no pool refresh; a recipe may add one."""
        for number in heads:
            self.heads[number].initialise(generator)


class ContinuousPoolConfig(PoolConfig):
    """LADD's pool: one head a level, at noise levels that are drawn anew for every picture."""

    type: Literal["continuous"] = "continuous"
    location: float = 0.0
    """Mean of the logit of t / 999: 0 favours middle noise, 1 more of it (LADD, section 3.2)."""
    scale: float = Field(1.0, gt=0)
    """Standard deviation of that logit."""
    width: int = Field(64, ge=16, multiple_of=8)
    """Channels inside a head."""

    def draw_chance(self) -> float:
        """Every head judges in every iteration."""
        return 1.0

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize:
        """Heads of `heads.CellHead`, one a level."""
        inner = 9 * self.width**2 + 5 * self.width + 1
        return PoolSize(len(channels), sum(c * self.width + inner for c in channels))

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        inputs = recipe.critic_of(self).backbone.level_inputs(recipe.teacher)
        if inputs and not any(level.prompt for level in inputs):
            said = (
                f"its heads judge with the prompt, which no level hears: {describe_levels(inputs)}"
            )
            yield Remark(said)

    def build(self, channels: tuple[int, ...], seed: int) -> ContinuousPool:
        return ContinuousPool(
            channels, width=self.width, location=self.location, scale=self.scale, seed=seed
        )

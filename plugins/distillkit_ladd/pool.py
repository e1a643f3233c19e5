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
    """`distillkit.contracts.Pool`: every head judges in every iteration (LADD, section 3)."""

    def __init__(
        self,
        channels: Sequence[int],
        *,
        width: int,
        location: float,
        scale: float,
        seed: int,
        pooled: int | None = None,
    ) -> None:
        from torch import nn

        from distillkit_ladd.heads import make_head

        self.location, self.scale = location, scale
        self.heads = nn.ModuleList(
            make_head(channels_of_level, width, keyed_generator(seed, "head", level), pooled)
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
    """Mean of the logit of t / 999: 0 favours middle noise (our choice), 1 more of it."""
    scale: float = Field(1.0, gt=0)
    """Standard deviation of that logit."""
    width: int = Field(64, ge=16, multiple_of=8)
    """Channels inside a head."""
    prompt_projection: bool = False
    """Whether the heads get the pooled prompt themselves, as LADD's do (section 3)."""

    @property
    def sees_prompt(self) -> bool:
        return self.prompt_projection

    def draw_chance(self) -> float:
        """Every head judges in every iteration."""
        return 1.0

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize | None:
        """Heads of `heads.CellHead`, one a level; a prompt's channels are not known yet."""
        if self.prompt_projection:
            return None
        inner = 9 * self.width**2 + 5 * self.width + 1
        return PoolSize(len(channels), sum(c * self.width + inner for c in channels))

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        backbone = recipe.critic_of(self).backbone
        inputs = backbone.level_inputs(recipe.teacher)
        if self.prompt_projection and backbone.pooled_channels(recipe.teacher) == 0:
            named = f"a {recipe.teacher.type} teacher's prompts have no pooled embedding"
            yield Remark(f"{named} that heads could see; leave it out", "prompt_projection")
        elif inputs and not self.prompt_projection and not any(level.prompt for level in inputs):
            said = (
                f"its heads judge with the prompt, which no level hears: {describe_levels(inputs)}"
            )
            yield Remark(said)

    def build(
        self, channels: tuple[int, ...], seed: int, pooled_channels: int | None = None
    ) -> ContinuousPool:
        return ContinuousPool(
            channels,
            width=self.width,
            location=self.location,
            scale=self.scale,
            seed=seed,
            pooled=pooled_channels if self.prompt_projection else None,
        )

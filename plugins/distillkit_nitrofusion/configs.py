"""What a recipe can say of NitroFusion's parts. Imports no torch: `build` does that.

Defaults are the paper's numbers (section 4); where it gives none, the field says "our choice".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from distillkit.configs import PoolConfig, RefinementConfig, RefreshConfig
from distillkit.errors import UserError
from distillkit_nitrofusion.views import check_name, view

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator

    from distillkit import contracts
    from distillkit_nitrofusion.heads import PatchHead


def distinct(values: list[Any]) -> list[Any]:
    """The values, if none stands twice."""
    twice = [str(v) for i, v in enumerate(values) if v in values[:i]]
    if twice:
        raise ValueError(f"each may stand once; given again: {', '.join(twice)}")
    return values


def rising(stages: dict[int, int]) -> dict[int, int]:
    """The stages, if each has a longer roll-out than the one before."""
    if list(stages) != sorted(stages):
        given, meant = (", ".join(map(str, order)) for order in (stages, sorted(stages)))
        raise ValueError(f"stages go from short roll-outs to long ones: {meant}, not {given}")
    return stages


Timestep = Annotated[int, Field(ge=0, le=999)]
Level = Annotated[int, Field(ge=0)]
Steps = Annotated[int, Field(ge=1, le=4)]
Iterations = Annotated[int, Field(ge=1)]
ViewName = Annotated[str, AfterValidator(check_name)]


# ---------------------------------------------------------------- pools


class Compartments(PoolConfig):
    """What both pools share: slots (view, t*, level), and the make of a head."""

    views: Annotated[list[ViewName], AfterValidator(distinct)] = Field(
        ["global-cond", "local-cond", "local-uncond"], min_length=1
    )
    """Views, each with as many heads: of global-cond, global-uncond, local-cond, local-uncond."""
    crop: float = Field(0.5, gt=0, lt=1)
    """Side of a local view as a share of the latent's (our choice)."""
    timesteps: Annotated[list[Timestep], AfterValidator(distinct)] = Field(
        [10, 250, 500, 750], min_length=1
    )
    """Discriminator timesteps t*; every head is an expert on one."""
    levels: Annotated[list[Level], AfterValidator(distinct)] | None = Field(None, min_length=1)
    """Levels of the backbone that have heads, from 0; none takes all."""
    draw: Literal["one", "all"] = "one"
    """Timesteps that judge in an iteration: one t*, drawn anew and the same for all views, or all
    of them at as many times the cost (our choice)."""
    width: int = Field(64, ge=16, multiple_of=8)
    """Channels inside a head (our choice)."""
    depth: int = Field(2, ge=1, le=6)
    """Blocks of a head; each halves the map, down to one cell (our choice)."""
    zero_init: bool = True
    """Start a head's last projection at zero: a new head tells the student nothing before it has
    learned. False starts it at random (our choice)."""

    @property
    def in_a_slot(self) -> int:
        """Heads in each slot."""
        return 1

    def build(self, channels: tuple[int, ...], seed: int) -> contracts.Pool:
        from distillkit_nitrofusion.heads import make_head

        return self._pool(
            channels,
            seed,
            lambda level, generator: make_head(
                channels[level], self.width, self.depth, self.zero_init, generator
            ),
        )

    def outline(self, channels: tuple[int, ...], seed: int) -> contracts.Pool:
        from distillkit_nitrofusion.heads import blank_head

        return self._pool(
            channels,
            seed,
            lambda level, _: blank_head(channels[level], self.width, self.depth, self.zero_init),
        )

    def _pool(
        self, channels: tuple[int, ...], seed: int, make_head: Callable[[int, Generator], PatchHead]
    ) -> contracts.Pool:
        from distillkit_nitrofusion.pool import CompartmentPool

        levels = range(len(channels)) if self.levels is None else self.levels
        if missing := [level for level in levels if level >= len(channels)]:
            raise UserError(
                f"pool.levels: there is no level {missing[0]}; "
                f"the backbone's levels are 0 to {len(channels) - 1}"
            )
        return CompartmentPool(
            views=[view(name, self.crop) for name in self.views],
            timesteps=self.timesteps,
            levels=levels,
            heads_per_slot=self.in_a_slot,
            one_timestep=self.draw == "one",
            make_head=make_head,
            seed=seed,
        )


class DynamicPool(Compartments):
    """The paper's pool: interchangeable heads in every slot, one of them drawn an iteration."""

    type: Literal["dynamic"] = "dynamic"
    heads_per_slot: int = Field(4, ge=1)
    """Heads in a slot: 4 with 3 views, 4 timesteps and 10 levels make the paper's 480."""

    @property
    def in_a_slot(self) -> int:
        return self.heads_per_slot


class StaticPool(Compartments):
    """The ablation's pool: one head a slot, so that no head is drawn.

    `draw` still says which t* judge. Under one seed they are those of the dynamic pool, so that
    two runs differ in their heads alone; `draw: all` lets every head judge every time.
    """

    type: Literal["static"] = "static"


# ---------------------------------------------------------------- refresh policies


class RandomRefresh(RefreshConfig):
    """The paper's: replace a random share of the heads."""

    type: Literal["random"] = "random"
    fraction: float = Field(0.01, ge=0, le=1)
    """Share of the pool that is replaced, rounded to heads, at least one: 5 of 480."""
    every: int = Field(1, ge=1)
    """Iterations (steps of the optimizers) between refreshes."""

    def build(self) -> contracts.Refresh:
        from distillkit_nitrofusion import refresh

        return refresh.RandomRefresh(self.fraction, self.every)


class OldestRefresh(RefreshConfig):
    """Replace the heads that have served longest, so that all live equally long."""

    type: Literal["oldest"] = "oldest"
    fraction: float = Field(0.01, ge=0, le=1)
    """Share of the pool that is replaced, rounded to heads, at least one: 5 of 480."""
    every: int = Field(1, ge=1)
    """Iterations (steps of the optimizers) between refreshes."""

    def build(self) -> contracts.Refresh:
        from distillkit_nitrofusion import refresh

        return refresh.OldestRefresh(self.fraction, self.every)


class NeverRefresh(RefreshConfig):
    """Keep every head: the ablation without refresh."""

    type: Literal["never"] = "never"

    def build(self) -> contracts.Refresh:
        from distillkit_nitrofusion import refresh

        return refresh.NeverRefresh()


# ---------------------------------------------------------------- refinements


class BottomUp(RefinementConfig):
    """The paper's: train one step first, then longer roll-outs with the same weights."""

    type: Literal["bottom-up"] = "bottom-up"
    stages: Annotated[dict[Steps, Iterations], AfterValidator(rising)] = Field(
        min_length=1, examples=[{1: 600, 2: 200, 4: 200}]
    )
    """Length of the roll-out -> iterations, from short to long: {1: 600, 2: 200, 4: 200}."""
    replay: float = Field(0.5, ge=0, le=1)
    """Chance that an iteration trains an earlier stage's length instead (our choice)."""

    def build(self) -> contracts.Refinement:
        from distillkit_nitrofusion import refinement

        return refinement.BottomUp(self.stages, self.replay)


class Fixed(RefinementConfig):
    """A roll-out of one length throughout."""

    type: Literal["fixed"] = "fixed"
    steps: Steps = 1
    """Length of the roll-out."""
    iterations: Iterations = Field(examples=[1000])
    """Iterations in all."""

    def build(self) -> contracts.Refinement:
        from distillkit_nitrofusion import refinement

        return refinement.BottomUp({self.steps: self.iterations}, replay=0)

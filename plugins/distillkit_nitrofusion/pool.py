"""What recipes say of the discriminator pool (sections 3.2 and 3.4); `compartments` is the pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from distillkit.configs import PoolConfig
from distillkit.errors import UserError
from distillkit.remarks import (
    MOST_HEADS,
    LevelInputs,
    PoolSize,
    Remark,
    describe_levels,
    without_effect,
)
from distillkit.values import View
from distillkit_nitrofusion.compartments import CompartmentPool, Draw
from distillkit_nitrofusion.views import check_name, compares_prompt, make_view

if TYPE_CHECKING:
    from torch import Generator

    from distillkit_nitrofusion.heads import Head


def distinct(values: list[Any]) -> list[Any]:
    """The values unchanged, if none is given twice."""
    twice = [str(v) for i, v in enumerate(values) if v in values[:i]]
    if twice:
        raise ValueError(f"each value may be given once; given again: {', '.join(twice)}")
    return values


Timestep = Annotated[int, Field(ge=0, le=999)]
Level = Annotated[int, Field(ge=0)]
ViewName = Annotated[str, AfterValidator(check_name)]


class CompartmentPoolConfig(PoolConfig):
    """The fields of both pools: slots (view, t*, level), and the size of a head.

    Defaults are the paper's numbers (section 4); where it gives none, the field says "our choice".
    """

    views: Annotated[list[ViewName], AfterValidator(distinct)] = Field(
        ["global-cond", "local-cond", "local-uncond"], min_length=1
    )
    """Views, each with as many heads: of global-cond, global-uncond, local-cond, local-uncond."""
    crop: float = Field(0.5, gt=0, lt=1)
    """Side of a local view as a fraction of the latent's side (our choice)."""
    timesteps: Annotated[list[Timestep], AfterValidator(distinct)] = Field(
        [10, 250, 500, 750], min_length=1
    )
    """Discriminator timesteps t*; every head is specialised on one."""
    levels: Annotated[list[Level], AfterValidator(distinct)] | None = Field(None, min_length=1)
    """Feature levels of the backbone that have heads, from 0; null for all."""
    draw: Draw = "one"
    """Timesteps t* of an iteration: one, drawn anew and shared by all views; all of them, which
    costs as many times more; or one drawn for each picture, which trains heads of every t* on some
    of the pictures, at the backbone's cost of one (our choice). The last is what one t* a
    micro-batch would be too: an iteration's gradient has all t*, each from a share of the batch;
    and it does not depend on the split into micro-batches."""
    head: Literal["patch", "cell"] = "patch"
    """`patch`: the paper's head, 4x4 convolutions with a stride (section 4). `cell`: LADD's, 1x1
    and residual 3x3 convolutions, with a logit for every cell of the map."""
    stride: Literal[1, 2] = 2
    """Stride of a patch head's convolutions: 2 in the paper, 1 for maps of few cells."""
    width: int = Field(64, ge=16, multiple_of=8)
    """Channels inside a head (our choice)."""
    depth: int = Field(2, ge=1, le=6)
    """Blocks of a head: convolutions of a patch head, each of which halves the map, down to one
    cell; residual convolutions of a cell head, LADD's has 1 (our choice)."""
    prompt_projection: bool = False
    """Whether heads of global conditional views get the pooled prompt themselves: they add its
    inner product with the features to their logits, as in StyleGAN-T and ADD. So even levels that
    do not hear the prompt can be asked whether a picture fits it."""
    image_logit: bool = False
    """Whether a head has one more logit, of its whole map, that it adds to those of the cells: from
    the channels' mean, maximum and standard deviation (our choice; the image's decision beside that
    of its parts is U-Net GAN's)."""
    zero_init: bool = True
    """Initialise a head's last projection with zeros, so that a new head gives the student no
    gradient before it has learned; false initialises it at random (our choice)."""

    @property
    def slot_size(self) -> int:
        """Heads in each slot."""
        return 1

    @property
    def whole_slots(self) -> bool:
        """Whether all heads of a slot judge, and not one of them."""
        return False

    def draw_chance(self) -> float:
        """1 / heads of a slot, times 1 / timesteps where one t* is drawn.

        With t* drawn for each picture it is that of a large batch, in which every t* occurs.
        """
        times = len(self.timesteps) if self.draw == "one" else 1
        return 1 / (times * (1 if self.whole_slots else self.slot_size))

    def needs_null(self) -> bool:
        return any(not make_view(name, self.crop).conditional for name in self.views)

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        backbone = recipe.critic_of(self).backbone
        channels = backbone.level_channels(recipe.teacher)
        if channels is not None and (flaw := self._missing_level(channels)):
            yield Remark(flaw, "levels")
            return
        if channels is not None and self.prompt_projection and self._heads(channels) > MOST_HEADS:
            said = f"makes {self._heads(channels):,} heads, and at most {MOST_HEADS:,} can be held"
            yield Remark(said, "heads_per_slot" if self.slot_size > 1 else "timesteps")
        if self.prompt_projection and backbone.pooled_channels(recipe.teacher) == 0:
            named = f"a {recipe.teacher.type} teacher's prompts have no pooled embedding"
            yield Remark(f"{named} that heads could see; leave it out", "prompt_projection")
        yield from self._deaf_views(backbone.level_inputs(recipe.teacher))
        if self.head == "cell":
            yield from without_effect(self, "with `head: cell`, which has none", "stride")
        if all(make_view(name, self.crop).crop == 1 for name in self.views):
            yield from without_effect(self, "without a local view", "crop")
        if not any(compares_prompt(make_view(name, self.crop)) for name in self.views):
            said = "without the view global-cond, whose heads it is for"
            yield from without_effect(self, said, "prompt_projection")

    def _deaf_views(self, inputs: Sequence[LevelInputs] | None) -> Iterator[Remark]:
        """Conditional views that do not hear the prompt: on no level, or on some."""
        if inputs is None:
            return
        there = range(len(inputs)) if self.levels is None else self.levels
        deaf = [level for level in there if not inputs[level].prompt]
        asked = [
            view
            for view in (make_view(name, self.crop) for name in self.views)
            if view.conditional and not (self.prompt_projection and compares_prompt(view))
        ]
        for view in asked if len(deaf) == len(there) else ():
            yield Remark(
                f"{view.name} hears nothing of the prompt on its levels, so that it judges as "
                f"{view.name.replace('cond', 'uncond')} would: {describe_levels(inputs)}. Add a "
                "level that hears the prompt, or name the other view",
                "views",
            )
        if asked and deaf and len(deaf) < len(there):
            levels = ", ".join(map(str, deaf))
            yield Remark(
                f"level {levels} hears nothing of the prompt: heads on it judge as those of an "
                "unconditional view, whatever their view's name says",
                "levels",
                is_error=False,
            )

    @property
    def sees_prompt(self) -> bool:
        return self.prompt_projection

    def _heads(self, channels: Sequence[int]) -> int:
        """All of them, on the levels that there are."""
        levels = len(channels) if self.levels is None else len(self.levels)
        return len(self.views) * len(self.timesteps) * self.slot_size * levels

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize | None:
        """Heads of `heads`: convolutions, norms and the projection; a prompt's is not known yet."""
        if self._missing_level(channels) or self.prompt_projection:
            return None
        there = range(len(channels)) if self.levels is None else self.levels
        slots = len(self.views) * len(self.timesteps) * self.slot_size
        width, depth = self.width, self.depth
        if self.head == "patch":
            first, inner = 16 * width, (depth - 1) * 16 * width**2 + 2 * depth * width
        else:
            first, inner = width, depth * (9 * width**2 + width) + 2 * width
        if self.image_logit:
            inner += (3 * width + 1) * 2 * width + 2 * width + 1
        of_level = [first * channels[level] + inner + width + 1 for level in there]
        return PoolSize(slots * len(of_level), slots * sum(of_level))

    def build(
        self, channels: tuple[int, ...], seed: int, pooled_channels: int | None = None
    ) -> CompartmentPool:
        from distillkit_nitrofusion.heads import make_head

        def make(view: View, level: int, generator: Generator) -> Head:
            kind = self._kind(view, pooled_channels)
            return make_head(
                channels[level], self.width, self.depth, self.zero_init, generator, **kind
            )

        return self._pool(channels, seed, make)

    def outline(
        self, channels: tuple[int, ...], seed: int, pooled_channels: int | None = None
    ) -> CompartmentPool:
        from distillkit_nitrofusion.heads import meta_head

        def make(view: View, level: int, _: Generator) -> Head:
            kind = self._kind(view, pooled_channels)
            return meta_head(channels[level], self.width, self.depth, self.zero_init, **kind)

        return self._pool(channels, seed, make)

    def _kind(self, view: View, pooled_channels: int | None) -> dict[str, Any]:
        """What a head of the view is, beside its size."""
        sees_prompt = self.prompt_projection and compares_prompt(view)
        pooled = pooled_channels if sees_prompt else None
        return {
            "kind": self.head,
            "stride": self.stride,
            "pooled": pooled,
            "image_logit": self.image_logit,
        }

    def _missing_level(self, channels: tuple[int, ...]) -> str | None:
        """What is wrong with `levels` on a backbone of these channels, if anything."""
        missing = [level for level in self.levels or () if level >= len(channels)]
        if not missing:
            return None
        return f"there is no level {missing[0]}; the backbone's levels are 0 to {len(channels) - 1}"

    def _pool(
        self,
        channels: tuple[int, ...],
        seed: int,
        make_head: Callable[[View, int, Generator], Head],
    ) -> CompartmentPool:
        levels = range(len(channels)) if self.levels is None else self.levels
        if flaw := self._missing_level(channels):
            raise UserError(f"pool.levels: {flaw}")
        return CompartmentPool(
            views=[make_view(name, self.crop) for name in self.views],
            timesteps=self.timesteps,
            levels=levels,
            heads_per_slot=self.slot_size,
            draw=self.draw,
            whole_slots=self.whole_slots,
            make_head=make_head,
            seed=seed,
        )


class DynamicPoolConfig(CompartmentPoolConfig):
    """The paper's pool: interchangeable heads in every slot, one of them drawn (section 3.2)."""

    type: Literal["dynamic"] = "dynamic"
    heads_per_slot: int = Field(4, ge=1)
    """Heads in a slot: 4 with 3 views, 4 timesteps and 10 levels make the paper's 480."""

    draw_heads: Literal["one", "all"] = "one"
    """Heads of a slot that judge in an iteration: one of them, as in the paper, or all."""

    @property
    def slot_size(self) -> int:
        return self.heads_per_slot

    @property
    def whole_slots(self) -> bool:
        return self.draw_heads == "all"


class StaticPoolConfig(CompartmentPoolConfig):
    """The ablation's pool: one head in every slot, so that no head is drawn (section 4.5).

    `draw` still selects the t* of an iteration. Under one seed they are those of the dynamic pool,
    so that two runs differ in their heads alone; with `draw: all` every head judges every time.
    """

    type: Literal["static"] = "static"

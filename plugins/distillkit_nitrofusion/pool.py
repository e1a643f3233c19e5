"""The discriminator pool (sections 3.2 and 3.4): compartments, and the draw of a panel D ~ P.

Legend: B batch, V views, T timesteps t* of this iteration, L feature levels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from distillkit.configs import PoolConfig, PoolSize, Remark
from distillkit.errors import UserError
from distillkit.randomness import generator as keyed_generator
from distillkit.values import DrawnHead, JudgedView, Panel, View
from distillkit_nitrofusion.views import check_name, make_view

if TYPE_CHECKING:
    from torch import Generator

    from distillkit_nitrofusion.heads import PatchHead


Draw = Literal["one", "all", "per-picture"]
"""How the timesteps t* of an iteration are drawn."""


class CompartmentPool:
    """P, compartmentalised by view and t* (sections 3.2 and 3.4); `distillkit.contracts.Pool`.

    A slot is (view, t*, level), and holds interchangeable heads. Heads are numbered view by view,
    then t* by t*, then level by level, then within the slot: head
    `((v * T + t) * L + l) * heads_per_slot + k`. The paper's 3 views x 4 timesteps x 10 levels x
    4 heads make 480, 160 a view (section 4).

    A panel has one head of each slot it uses, drawn uniformly, or all of them. The slots are those
    of one t* that all views share in the iteration (`draw: one`), of every t* (`all`), or of a t*
    drawn for each picture (`per-picture`), so that every noise level is trained in every iteration
    at the backbone's cost of one. With one head a slot only t* is drawn: the static pool of the
    ablation (section 4.5).
    """

    def __init__(
        self,
        *,
        views: Sequence[View],
        timesteps: Sequence[int],
        levels: Sequence[int],
        heads_per_slot: int,
        draw: Draw,
        whole_slots: bool,
        make_head: Callable[[int, Generator], PatchHead],
        seed: int,
    ) -> None:
        """`make_head` takes a level, and a generator keyed by `seed` and the head's number."""
        from torch import nn

        self.views = tuple(views)
        self.timesteps = tuple(timesteps)
        self.levels = tuple(levels)
        self.heads_per_slot = heads_per_slot
        self.draw_timesteps = draw
        self.whole_slots = whole_slots
        slots = product(self.views, self.timesteps, self.levels, range(heads_per_slot))
        self.heads = nn.ModuleList(
            make_head(level, keyed_generator(seed, "head", number))
            for number, (_, _, level, _) in enumerate(slots)
        )

    def draw(self, batch: int, generator: Generator) -> Panel:
        """D ~ P (section 3.2): one head a level for every view and chosen t*."""
        import torch

        # P_t*: the compartments of one noise level, or of all; and the pictures that each judges.
        rows_of: dict[int, tuple[int, ...] | None] = dict.fromkeys(range(len(self.timesteps)))
        if self.draw_timesteps == "one":
            rows_of = {int(torch.randint(len(rows_of), (), generator=generator)): None}
        elif self.draw_timesteps == "per-picture":
            t_B = torch.randint(len(rows_of), (batch,), generator=generator).tolist()
            rows_of = {t: tuple(b for b in range(batch) if t_B[b] == t) for t in sorted({*t_B})}
        # D_t* ~ P_t*: one of the interchangeable heads of each slot.
        shape = (len(self.views), len(rows_of), len(self.levels))
        pick_VTL = torch.randint(self.heads_per_slot, shape, generator=generator).tolist()
        return Panel(
            tuple(
                JudgedView(
                    view,
                    torch.full((batch if rows is None else len(rows),), self.timesteps[t]),
                    self._drawn_heads(v, t, pick_VTL[v][i]),
                    rows,
                )
                for v, view in enumerate(self.views)
                for i, (t, rows) in enumerate(rows_of.items())
            )
        )

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        """New weights (section 3.3), drawn head after head in the given order."""
        for number in heads:
            self.heads[number].initialise(generator)

    def _drawn_heads(self, v: int, t: int, pick_L: Sequence[int]) -> tuple[DrawnHead, ...]:
        first_slot = (v * len(self.timesteps) + t) * len(self.levels)
        size = self.heads_per_slot
        return tuple(
            DrawnHead(level, (first_slot + i) * size + k)
            for i, (level, pick) in enumerate(zip(self.levels, pick_L, strict=True))
            for k in (range(size) if self.whole_slots else (pick,))
        )


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
    of the pictures, at the backbone's cost of one (our choice)."""
    width: int = Field(64, ge=16, multiple_of=8)
    """Channels inside a head (our choice)."""
    depth: int = Field(2, ge=1, le=6)
    """Blocks of a head; each halves the map, down to one cell (our choice)."""
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

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        channels = recipe.critic_of(self).backbone.level_channels(recipe.teacher)
        if channels is not None and (flaw := self._missing_level(channels)):
            yield Remark(flaw, "levels")

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize | None:
        """Heads of `heads.PatchHead`: convolutions, norms and the projection."""
        if self._missing_level(channels):
            return None
        there = range(len(channels)) if self.levels is None else self.levels
        slots = len(self.views) * len(self.timesteps) * self.slot_size
        inner = (self.depth - 1) * 16 * self.width**2 + (2 * self.depth + 1) * self.width + 1
        of_level = [16 * channels[level] * self.width + inner for level in there]
        return PoolSize(slots * len(of_level), slots * sum(of_level))

    def build(self, channels: tuple[int, ...], seed: int) -> CompartmentPool:
        from distillkit_nitrofusion.heads import make_head

        return self._pool(
            channels,
            seed,
            lambda level, generator: make_head(
                channels[level], self.width, self.depth, self.zero_init, generator
            ),
        )

    def outline(self, channels: tuple[int, ...], seed: int) -> CompartmentPool:
        from distillkit_nitrofusion.heads import meta_head

        return self._pool(
            channels,
            seed,
            lambda level, _: meta_head(channels[level], self.width, self.depth, self.zero_init),
        )

    def _missing_level(self, channels: tuple[int, ...]) -> str | None:
        """What is wrong with `levels` on a backbone of these channels, if anything."""
        missing = [level for level in self.levels or () if level >= len(channels)]
        if not missing:
            return None
        return f"there is no level {missing[0]}; the backbone's levels are 0 to {len(channels) - 1}"

    def _pool(
        self, channels: tuple[int, ...], seed: int, make_head: Callable[[int, Generator], PatchHead]
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

"""The pool of heads in compartments, and the draw of a panel D ~ P (sections 3.2 and 3.4).

Legend: B batch, V views, T timesteps t* of this iteration, L feature levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal

from distillkit.randomness import generator as keyed_generator
from distillkit.values import DrawnHead, JudgedView, Panel, View

if TYPE_CHECKING:
    from torch import Generator

    from distillkit_nitrofusion.heads import Head


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
        make_head: Callable[[View, int, Generator], Head],
        seed: int,
    ) -> None:
        """`make_head`: view, level, and a generator keyed by `seed` and the head's number."""
        from torch import nn

        self.views = tuple(views)
        self.timesteps = tuple(timesteps)
        self.levels = tuple(levels)
        self.heads_per_slot = heads_per_slot
        self.draw_timesteps = draw
        self.whole_slots = whole_slots
        slots = product(self.views, self.timesteps, self.levels, range(heads_per_slot))
        self.heads = nn.ModuleList(
            make_head(view, level, keyed_generator(seed, "head", number))
            for number, (view, _, level, _) in enumerate(slots)
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

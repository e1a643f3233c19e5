"""The discriminator pool (paper, section 3.2): compartments, and the draw of a panel.

Legend: B batch, V views, T timesteps of this iteration, L levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Generator, nn

from distillkit.randomness import generator as generator_for
from distillkit.values import DrawnHead, JudgedView, Panel, View
from distillkit_nitrofusion.heads import PatchHead


class CompartmentPool:
    """P, compartmented by view and t* (sections 3.2 and 3.4), with interchangeable heads in a slot.

    A slot is (view, t*, level). Heads are numbered view by view, in a view t* by t*, then level by
    level, then within the slot: head `((v * T + t) * L + l) * heads_per_slot + k`. The paper's
    3 views x 4 timesteps x 10 levels x 4 heads make 480, 160 a view.

    A panel has one head of each slot it uses, drawn evenly: of all timesteps, or, with
    `one_timestep`, of one t* that all views share in the iteration. With one head a slot nothing
    but that t* is left to draw: this is the static pool of the ablation (section 4.5).
    """

    def __init__(
        self,
        views: Sequence[View],
        timesteps: Sequence[int],
        levels: Sequence[int],
        heads_per_slot: int,
        one_timestep: bool,
        make_head: Callable[[int, Generator], PatchHead],
        seed: int,
    ) -> None:
        """`make_head` takes a level and a generator keyed by `seed` and the head's number."""
        self.views = tuple(views)
        self.timesteps = tuple(timesteps)
        self.levels = tuple(levels)
        self.heads_per_slot = heads_per_slot
        self.one_timestep = one_timestep
        slots = product(self.views, self.timesteps, self.levels, range(heads_per_slot))
        self.heads = nn.ModuleList(
            make_head(level, generator_for(seed, "head", number))
            for number, (_, _, level, _) in enumerate(slots)
        )

    def draw(self, batch: int, generator: Generator) -> Panel:
        """D ~ P: a look for every view and chosen t*, with one head a level."""
        times = list(range(len(self.timesteps)))
        if self.one_timestep:
            times = [int(torch.randint(len(times), (), generator=generator))]
        shape = (len(self.views), len(times), len(self.levels))
        pick_VTL = torch.randint(self.heads_per_slot, shape, generator=generator).tolist()
        return Panel(
            tuple(
                JudgedView(
                    view,
                    torch.full((batch,), self.timesteps[t], dtype=torch.int64),
                    self._seats(v, t, pick_VTL[v][i]),
                )
                for v, view in enumerate(self.views)
                for i, t in enumerate(times)
            )
        )

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        """Section 3.3: new weights, drawn head after head in the given order."""
        for number in heads:
            self.heads[number].initialise(generator)

    def _seats(self, v: int, t: int, pick_L: Sequence[int]) -> tuple[DrawnHead, ...]:
        first_slot = (v * len(self.timesteps) + t) * len(self.levels)
        return tuple(
            DrawnHead(level, (first_slot + i) * self.heads_per_slot + pick)
            for i, (level, pick) in enumerate(zip(self.levels, pick_L, strict=True))
        )

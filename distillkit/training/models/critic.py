"""A critic (discriminator): a backbone, and the pool of heads on it with ages and refresh.

Legend: N heads in the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from distillkit.contracts import Backbone, Pool, Refresh
from distillkit.noising import NoiseSchedule
from distillkit.randomness import generator
from distillkit.training.guard import Guard
from distillkit.training.guard.returns import check_panel, check_picked
from distillkit.training.models.optimizers import delete_state
from distillkit.values import HeadStats, Panel


@dataclass
class Critic:
    """Who judges: heads drawn from a pool, on the feature maps of a backbone."""

    backbone: Backbone
    pool: Pool
    refresh: Refresh | None
    schedule: NoiseSchedule
    seed: int
    name: str = ""
    """Empty for the recipe's only critic; part of the random keys otherwise."""
    decode: Callable[[Tensor], Tensor] | None = None
    """Latents -> pictures, for a backbone that sees pictures."""
    steps: Sequence[int] = ()
    """Lengths of the roll-outs that it judges; empty is all."""
    mixed: bool = False
    """Whether heads run in mixed precision: then they get maps in the backbone's number format."""
    guards: Mapping[str, Guard] = field(default_factory=dict)
    """Who to name when backbone, pool or refresh break their contract, by socket."""

    def __post_init__(self) -> None:
        count = len(self.pool.heads)
        self.judged = torch.zeros((), dtype=torch.int64)
        """Iterations in which it has judged, the warm-up's too; refresh and ages count by them."""
        self.reset_iteration_N = torch.zeros(count, dtype=torch.int64)
        """How many of these each head was last (re-)initialised after."""
        self.updates_N = torch.zeros(count, dtype=torch.int64)
        """Updates of each head since then."""
        self.wins_N = torch.zeros(count, dtype=torch.float64)
        """Pictures since then of which each head ranked real above fake; a tie counts half."""
        self.seen_N = torch.zeros(count, dtype=torch.float64)
        """Pictures that each head has judged since then."""
        self.learned_N = torch.zeros(count, dtype=torch.bool)
        """Heads that the iteration at hand has updated."""

    def guard(self, socket: str) -> Guard:
        """The guard of this critic's part."""
        return self.guards.get(socket) or Guard(socket)

    @cached_property
    def backbone_trains(self) -> bool:
        """Whether the backbone has weights that learn; asked once, since a pass asks often."""
        modules = self.backbone.modules()
        return any(p.requires_grad for module in modules for p in module.parameters())

    def judges(self, steps: int) -> bool:
        """Whether it judges roll-outs of this length."""
        return not self.steps or steps in self.steps

    def draw(self, i: int, batch: int) -> Panel:
        """The heads of iteration `i` for `batch` pictures (D ~ P, section 3.2).

        Every process draws the same. Raises `PartError` for a panel that breaks its contract.
        """
        guard = self.guard("pool")
        with guard("draw()"):
            panel = self.pool.draw(batch, self._generator("panel", i))
        guard.once("draw()", lambda: check_panel(panel, self.pool, self.backbone, batch))
        return panel

    def count_updates(self, drawn: Sequence[int]) -> None:
        """Count an update of the drawn heads that have a gradient: a loss may use none of them."""
        heads = self.pool.heads
        learned = [h for h in drawn if any(p.grad is not None for p in heads[h].parameters())]
        self.updates_N[learned] += 1
        self.learned_N[learned] = True

    def count(self, scores: Mapping[int, tuple[float, float]]) -> None:
        """Add an iteration's (wins, pictures) of the drawn heads."""
        for head, (wins, seen) in scores.items():
            self.wins_N[head] += wins
            self.seen_N[head] += seen

    def stats(self) -> HeadStats:
        """What the refresh policy is told after an iteration in which the critic judged."""
        return HeadStats(
            age_N=self.judged + 1 - self.reset_iteration_N,
            updates_N=self.updates_N.clone(),
            learned_N=self.learned_N.clone(),
            accuracy_N=self.wins_N / self.seen_N,  # 0 / 0 is NaN: never seen
        )

    def life(self) -> dict[str, float]:
        """Median updates of the pool's heads since their reset, and the share of untrained ones."""
        updates_N = self.updates_N.double()
        untrained = float((updates_N == 0).double().mean())
        return {"updates": float(updates_N.median()), "untrained": round(untrained, 4)}

    def pick(self, i: int, stats: HeadStats) -> list[int]:
        """The heads to reset after the run's iteration `i`, in which the critic judged; on every
        process the same."""
        judged = int(self.judged)
        self.judged += 1
        self.learned_N.zero_()
        if self.refresh is None:
            return []
        guard = self.guard("refresh")
        with guard("pick()"):
            picked = list(self.refresh.pick(judged, stats, self._generator("refresh", i)))
        guard.check("pick()", lambda: check_picked(picked, len(stats)))
        return picked

    def reset(self, i: int, heads: Sequence[int], optimizer: Optimizer | None) -> None:
        """Re-initialise heads after iteration `i` (pool refresh, section 3.3).

        Their optimizer state is deleted: a new head must not inherit an old head's momentum.
        """
        with self.guard("pool")("reset()"):
            self.pool.reset(heads, self._generator("reset", i))
        delete_state(optimizer, self.parameters(heads))
        self.reset_iteration_N[list(heads)] = self.judged
        for counts in (self.updates_N, self.wins_N, self.seen_N):
            counts[list(heads)] = 0

    def parameters(self, heads: Sequence[int]) -> list[nn.Parameter]:
        """Parameters of these heads."""
        return [p for head in heads for p in self.pool.heads[head].parameters()]

    @contextmanager
    def on_device(
        self, heads: Sequence[int], device: Any, optimizer: Optimizer | None
    ) -> Iterator[None]:
        """Inside, these heads are on the device with their moments; afterwards in main memory."""
        self._move(heads, device, optimizer)
        try:
            yield
        finally:
            self._move(heads, "cpu", optimizer)

    def _move(self, heads: Sequence[int], device: Any, optimizer: Optimizer | None) -> None:
        for head in heads:
            self.pool.heads[head].to(device)
        for parameter in self.parameters(heads) if optimizer is not None else ():
            moments = optimizer.state.get(parameter, {})  # type: ignore[union-attr]
            moments |= {n: v.to(device) for n, v in moments.items() if isinstance(v, Tensor)}

    def _generator(self, purpose: str, i: int) -> torch.Generator:
        # The only critic's keys have no name in them: runs of one critic draw what they always did.
        return generator(self.seed, purpose, i, *([self.name] if self.name else []))

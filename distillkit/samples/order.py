"""Which sample comes next: a pure function of the position in the run.

Nothing needs saving to resume, and processes and micro-batches are slices of one global order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from distillkit.randomness import generator


@dataclass(frozen=True)
class BatchSlices:
    """How an iteration's pictures are split over processes and micro-batches."""

    batch: int
    """Pictures a process and micro-batch."""
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    @property
    def total(self) -> int:
        """Pictures of one iteration, all ranks and micro-batches."""
        return self.batch * self.accumulate * self.world

    def rows(self, micro: int) -> slice:
        """This process's pictures of micro-batch `micro`, among the iteration's."""
        first = (micro * self.world + self.rank) * self.batch
        return slice(first, first + self.batch)

    def positions(self, iteration: int, micro: int) -> range:
        """The same pictures, numbered through the whole run."""
        rows, first = self.rows(micro), iteration * self.total
        return range(first + rows.start, first + rows.stop)


@dataclass(frozen=True)
class Repeats:
    """Each sample is used several times: an iteration's pictures come again in later iterations.

    The run is cut into blocks of `uses` x `window` iterations. The first `window` of a block have
    new samples; then these come again, `uses` - 1 times. Each row of the iteration has a shuffle of
    its own, so that a picture meets others every time, and always in the same row: whatever process
    and micro-batch made it also has it when it comes again.
    """

    uses: int
    window: int
    rows: int
    """Pictures of one iteration, all ranks and micro-batches."""

    def draw(self, position: int, seed: int) -> int:
        """Number of the sample at this position, counted in the order in which they are made."""
        iteration, row = divmod(position, self.rows)
        block, place = divmod(iteration, self.uses * self.window)
        turn, place = divmod(place, self.window)
        if turn:
            place = _turn(self.window, seed, block, turn, row)[place]
        return (block * self.window + place) * self.rows + row

    def first_draw(self, position: int) -> int:
        """Number of the first sample of the position's block; no earlier one comes again."""
        block = position // (self.rows * self.uses * self.window)
        return block * self.window * self.rows


@dataclass(frozen=True)
class SampleOrder:
    """Position in the run -> sample id -> its prompt; reshuffled every epoch."""

    prompts: Sequence[str]
    seed: int
    """Seed of the samples: which prompt and which noise an id has."""
    count: int | None = None
    """Distinct samples; none never repeats one."""
    order_seed: int = 0
    """Seed of the order in which a run visits them."""
    repeats: Repeats | None = None
    """How samples come again; None uses each once (an epoch of `count`)."""

    def sample_id(self, position: int) -> int:
        """Id of the sample at this position of the run."""
        return self.id_of(self.draw(position))

    def draw(self, position: int) -> int:
        """Number of the sample at this position, counted in the order in which they are made."""
        return position if self.repeats is None else self.repeats.draw(position, self.order_seed)

    def first_draw(self, position: int) -> int:
        """The first number that may come at this position or later."""
        return position if self.repeats is None else self.repeats.first_draw(position)

    def id_of(self, draw: int) -> int:
        """Id of a sample by its number: from a shuffled epoch of `count`, or ever new."""
        if self.count is None:
            return draw
        epoch, place = divmod(draw, self.count)
        return _shuffle(self.count, self.order_seed, "samples", epoch)[place]

    def prompt_index(self, sample_id: int) -> int:
        """Index of a sample's prompt. All prompts are used before one comes again."""
        epoch, place = divmod(sample_id, len(self.prompts))
        return _shuffle(len(self.prompts), self.seed, "prompts", epoch)[place]

    def prompt(self, sample_id: int) -> str:
        """Prompt of a sample."""
        return self.prompts[self.prompt_index(sample_id)]


@lru_cache(maxsize=4)
def _shuffle(count: int, seed: int, purpose: str, epoch: int) -> list[int]:
    import torch

    order: list[int] = torch.randperm(count, generator=generator(seed, purpose, epoch)).tolist()
    return order


@lru_cache(maxsize=4096)
def _turn(window: int, seed: int, block: int, turn: int, row: int) -> list[int]:
    import torch

    rng = generator(seed, "uses", block, turn, row)
    order: list[int] = torch.randperm(window, generator=rng).tolist()
    return order

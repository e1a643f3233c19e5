"""Which picture comes next: a pure function of the position in the run.

Nothing is saved for the stream to resume, and ranks and micro-batches deal one global order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from distillkit.randomness import generator


@dataclass(frozen=True)
class Deal:
    """How an iteration's pictures are dealt to ranks and micro-batches."""

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
        """This rank's pictures of micro-batch `micro`, among the iteration's."""
        first = (micro * self.world + self.rank) * self.batch
        return slice(first, first + self.batch)

    def positions(self, iteration: int, micro: int) -> range:
        """The same pictures, numbered through the whole run."""
        rows, first = self.rows(micro), iteration * self.total
        return range(first + rows.start, first + rows.stop)


@dataclass(frozen=True)
class Stream:
    """Position in the run -> number of the sample -> its prompt, shuffled anew every epoch."""

    prompts: Sequence[str]
    seed: int
    """Of the samples: which prompt and which noise belong to a number."""
    count: int | None = None
    """Distinct samples; none never repeats one."""
    order: int = 0
    """Seed of the order in which a run meets them."""

    def sample_id(self, position: int) -> int:
        """Number of the sample at this position: a shuffled epoch over `count`, or ever new."""
        if self.count is None:
            return position
        epoch, place = divmod(position, self.count)
        return _shuffle(self.count, self.order, "samples", epoch)[place]

    def prompt(self, sample_id: int) -> str:
        """Prompt of a sample. All prompts are used before one comes again."""
        epoch, place = divmod(sample_id, len(self.prompts))
        return self.prompts[_shuffle(len(self.prompts), self.seed, "prompts", epoch)[place]]


@lru_cache(maxsize=4)
def _shuffle(count: int, seed: int, purpose: str, epoch: int) -> list[int]:
    import torch

    order: list[int] = torch.randperm(count, generator=generator(seed, purpose, epoch)).tolist()
    return order

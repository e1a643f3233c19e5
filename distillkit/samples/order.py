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
class SampleOrder:
    """Position in the run -> sample id -> its prompt; reshuffled every epoch."""

    prompts: Sequence[str]
    seed: int
    """Seed of the samples: which prompt and which noise an id has."""
    count: int | None = None
    """Distinct samples; none never repeats one."""
    order_seed: int = 0
    """Seed of the order in which a run visits them."""

    def sample_id(self, position: int) -> int:
        """Id of the sample at this position: from a shuffled epoch of `count`, or ever new."""
        if self.count is None:
            return position
        epoch, place = divmod(position, self.count)
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

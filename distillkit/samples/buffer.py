"""The teacher's samples that come again: made once, kept in main memory while `samples.uses` lasts.

Nothing of it is in a checkpoint. Which sample stands at which place of the run is a pure function
(`SampleOrder.draw`), and a run that is resumed makes what is still to be used again, in the batches
of old, so that not even the last bit differs. That costs the sampling of `samples.buffer`
iterations at most.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from distillkit.samples.order import SampleOrder


@dataclass(frozen=True)
class SampleBuffer:
    """A process's own samples, by the number of the batch in which they are made."""

    order: SampleOrder
    batch: int
    """Pictures of a process and micro-batch: the teacher makes as many at once."""
    _batches: dict[int, Tensor] = field(default_factory=dict)

    def at(self, positions: Sequence[int], make: Callable[[Sequence[int]], Tensor]) -> Tensor:
        """Samples (B, C, H, W) at these places of the run, on the CPU.

        `make` gives the samples of these ids. A place and all of its samples' earlier places are in
        one row of the iteration, and so in one process.
        """
        draws = [self.order.draw(position) for position in positions]
        for number in sorted({draw // self.batch for draw in draws} - self._batches.keys()):
            made = range(number * self.batch, (number + 1) * self.batch)
            self._batches[number] = make([self.order.id_of(draw) for draw in made]).cpu()
        self._forget(self.order.first_draw(positions[0]) // self.batch)
        places = [divmod(draw, self.batch) for draw in draws]
        return torch.stack([self._batches[number][row] for number, row in places])

    def _forget(self, first: int) -> None:
        """Drop batches before `first`, whose samples don't come again."""
        for number in [n for n in self._batches if n < first]:
            del self._batches[number]

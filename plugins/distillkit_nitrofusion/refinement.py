"""Bottom-up multi-step refinement (paper, section 3.5): first one step, then more, same weights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

import torch
from torch import Generator


class BottomUp:
    """Stage after stage of longer roll-outs (section 3.5); shorter ones stay in the mix.

    In a stage, an iteration goes back with probability `replay` to the length of an earlier stage,
    each as likely as the others, so that one step does not get worse while four get better.
    A single stage is a roll-out of fixed length.
    """

    def __init__(self, stages: Mapping[int, int], replay: float) -> None:
        """`stages`: length of the roll-out -> iterations, in the order of training."""
        self.lengths = tuple(stages)
        self.ends = tuple(accumulate(stages.values()))
        self.replay = replay
        self.iterations = self.ends[-1]

    def stage(self, iteration: int) -> str:
        """ "1-step", "2-step", ..."""
        return f"{self.lengths[self._index(iteration)]}-step"

    def steps(self, iteration: int, generator: Generator) -> int:
        """The stage's length, or an earlier stage's."""
        index = self._index(iteration)
        if index > 0 and float(torch.rand((), generator=generator)) < self.replay:
            index = int(torch.randint(index, (), generator=generator))
        return self.lengths[index]

    def _index(self, iteration: int) -> int:
        if not 0 <= iteration < self.iterations:
            raise ValueError(f"iteration {iteration} is not one of the {self.iterations}")
        return bisect_right(self.ends, iteration)

"""Bottom-up multi-step refinement (section 3.5): one step first, then more, on the same weights."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

from distillkit.configs import RefinementConfig
from distillkit.remarks import Remark, without_effect

if TYPE_CHECKING:
    from torch import Generator


class BottomUp:
    """Stages of longer and longer roll-outs (section 3.5), with replay of the shorter ones.

    An iteration takes, with probability `replay`, the length of an earlier stage, drawn uniformly,
    so that one-step quality does not fall while four-step quality rises. A single stage is a
    roll-out of fixed length.
    """

    def __init__(self, stages: Mapping[int, int], replay: float) -> None:
        """`stages`: length of the roll-out -> iterations, in the order of training."""
        self.lengths = tuple(stages)
        self.ends = tuple(accumulate(stages.values()))
        self.replay = replay
        self.iterations = self.ends[-1]

    def stage(self, iteration: int) -> str:
        """Name of the stage: "1-step", "2-step", and so on."""
        return f"{self.lengths[self._index(iteration)]}-step"

    def steps(self, iteration: int, generator: Generator) -> int:
        """Length of the roll-out: the stage's own, or one that is replayed."""
        import torch

        index = self._index(iteration)
        if index > 0 and float(torch.rand((), generator=generator)) < self.replay:
            index = int(torch.randint(index, (), generator=generator))
        return self.lengths[index]

    def _index(self, iteration: int) -> int:
        if not 0 <= iteration < self.iterations:
            raise ValueError(f"iteration {iteration} is not one of the {self.iterations}")
        return bisect_right(self.ends, iteration)


def ascending(stages: dict[int, int]) -> dict[int, int]:
    """The stages unchanged, if each has a longer roll-out than the one before."""
    if list(stages) != sorted(stages):
        given, meant = (", ".join(map(str, order)) for order in (stages, sorted(stages)))
        raise ValueError(f"stages go from short roll-outs to long ones: {meant}, not {given}")
    return stages


Steps = Annotated[int, Field(ge=1, le=4)]
Iterations = Annotated[int, Field(ge=1)]


def _idle(lengths: Iterable[int], field: str, recipe: Any) -> Iterator[Remark]:
    """Lengths of the roll-out that none of the recipe's critics, or none of its losses, is for."""
    parts = {"critic judges": recipe.all_critics().values(), "loss trains": recipe.losses}
    for steps in lengths:
        for what, some in parts.items():
            if some and not any(not each.steps or steps in each.steps for each in some):
                said = f"no {what} roll-outs of length {steps}; see `steps` of each"
                yield Remark(said, field)


class BottomUpConfig(RefinementConfig):
    """The paper's schedule: train one step first, then longer roll-outs (section 3.5)."""

    type: Literal["bottom-up"] = "bottom-up"
    stages: Annotated[dict[Steps, Iterations], AfterValidator(ascending)] = Field(
        min_length=1, examples=[{1: 600, 2: 200, 4: 200}]
    )
    """Length of the roll-out -> iterations, from short to long: {1: 600, 2: 200, 4: 200}."""
    replay: float = Field(0.5, ge=0, le=1)
    """Probability that an iteration trains an earlier stage's length instead (our choice)."""

    def preflight(self, recipe: Any) -> Iterator[Remark]:
        yield from _idle(self.stages, "stages", recipe)
        if len(self.stages) == 1:
            yield from without_effect(self, "with one stage", "replay")

    def build(self) -> BottomUp:
        return BottomUp(self.stages, self.replay)


class FixedConfig(RefinementConfig):
    """A roll-out of one length throughout."""

    type: Literal["fixed"] = "fixed"
    steps: Steps = 1
    """Length of the roll-out."""
    iterations: Iterations = Field(examples=[1000])
    """Iterations in all."""

    def preflight(self, recipe: Any) -> Iterator[Remark]:
        return _idle([self.steps], "steps", recipe)

    def build(self) -> BottomUp:
        return BottomUp({self.steps: self.iterations}, replay=0)

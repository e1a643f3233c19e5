"""A refinement that draws the length of every roll-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import RefinementConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Generator


@dataclass
class ExampleRefinement:
    """Every length from one to `longest` is as likely as the others, from start to end."""

    iterations: int
    longest: int

    def stage(self, iteration: int) -> str:
        return "mixed"

    def steps(self, iteration: int, generator: Generator) -> int:
        import torch

        return int(torch.randint(1, self.longest + 1, (), generator=generator))


class ExampleRefinementConfig(RefinementConfig):
    """Roll-outs of any length, mixed throughout."""

    type: Literal["example"] = "example"
    iterations: int = Field(500, ge=1)
    """Iterations in all."""
    longest: int = Field(4, ge=1, le=4)
    """Steps of the longest roll-out."""

    def build(self) -> ExampleRefinement:
        return ExampleRefinement(self.iterations, self.longest)


@hookimpl
def distillkit_register_refinements() -> list[type[RefinementConfig]]:
    return [ExampleRefinementConfig]

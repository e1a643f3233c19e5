"""Round-robin refresh: one head after the other is replaced, so that no head grows old."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import RefreshConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor


@dataclass(frozen=True)
class RoundRobin:
    """Replaces one head every `every` iterations, in the order of the pool."""

    every: int

    def pick(self, iteration: int, age_N: Tensor, generator: Generator) -> Sequence[int]:
        spec, rest = divmod(iteration + 1, self.every)
        return [] if rest else [(spec - 1) % len(age_N)]


class RoundRobinRefresh(RefreshConfig):
    """Replace one head after the other."""

    type: Literal["round-robin"] = "round-robin"
    every: int = Field(1, ge=1)
    """Iterations between two replacements."""

    def build(self) -> RoundRobin:
        return RoundRobin(self.every)


@hookimpl
def distillkit_register_refreshes() -> list[type[RefreshConfig]]:
    return [RoundRobinRefresh]


@hookimpl
def distillkit_register_recipes() -> list[Path]:
    return [Path(__file__).parent / "recipes"]

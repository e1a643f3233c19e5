"""A refresh policy that replaces heads which have served their time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import RefreshConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Generator

    from distillkit.values import HeadStats


@dataclass(frozen=True)
class ExampleRefresh:
    """Replaces every head at the same age, measured in iterations since it was new."""

    age: int

    def pick(self, iteration: int, heads: HeadStats, generator: Generator) -> Sequence[int]:
        return (heads.age_N >= self.age).nonzero().flatten().tolist()


class ExampleRefreshConfig(RefreshConfig):
    """Replace heads of a certain age."""

    type: Literal["example"] = "example"
    age: int = Field(100, ge=1)
    """Iterations that a head serves."""

    def build(self) -> ExampleRefresh:
        return ExampleRefresh(self.age)


@hookimpl
def distillkit_register_refreshes() -> list[type[RefreshConfig]]:
    return [ExampleRefreshConfig]

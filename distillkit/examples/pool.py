"""A pool with a few linear heads on each level, of which one judges, at a timestep of its draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import PoolConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Generator

    from distillkit.values import Panel


class ExamplePool:
    """Head `level * copies + k` is the k-th on its level."""

    def __init__(self, channels: tuple[int, ...], copies: int, seed: int) -> None:
        from torch import nn

        from distillkit.randomness import generator

        self.copies = copies
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 1, 1, device="meta").to_empty(device="cpu"), nn.Flatten())
            for c in channels
            for _ in range(copies)
        )
        self.reset(range(len(self.heads)), generator(seed, "example"))

    def draw(self, batch: int, generator: Generator) -> Panel:
        import torch

        from distillkit.values import DrawnHead, JudgedView, Panel, View

        levels = len(self.heads) // self.copies
        pick_L = torch.randint(self.copies, (levels,), generator=generator).tolist()
        heads = tuple(DrawnHead(level, level * self.copies + k) for level, k in enumerate(pick_L))
        t_B = torch.randint(1000, (), generator=generator).expand(batch)
        return Panel((JudgedView(View("whole", crop=1.0, conditional=True), t_B, heads),))

    def reset(self, heads: Sequence[int], generator: Generator) -> None:
        from torch import nn

        for head in heads:
            for parameter in self.heads[head].parameters():
                nn.init.normal_(parameter, std=0.1, generator=generator)


class ExamplePoolConfig(PoolConfig):
    """Linear heads: a few on each level, one of them drawn."""

    type: Literal["example"] = "example"
    copies: int = Field(2, ge=1)
    """Heads on a level."""

    def build(self, channels: tuple[int, ...], seed: int) -> ExamplePool:
        return ExamplePool(channels, self.copies, seed)


@hookimpl
def distillkit_register_pools() -> list[type[PoolConfig]]:
    return [ExamplePoolConfig]

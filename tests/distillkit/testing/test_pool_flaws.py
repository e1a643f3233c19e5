"""What a pool can get wrong: panels and new weights. Each is told in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.remarks import PoolSize
from distillkit.values import DrawnHead, JudgedView, Panel, View
from tests.distillkit.testing.flaws import Flaws, flawed, rebuilt, said_of, table, without


def panel(*heads: DrawnHead, t: Any = 10, crop: float = 1.0, rows: Any = None) -> Any:
    """A `draw` that gives one view, with t* (a tensor, or one for all pictures)."""

    def draw(sound: Any, batch: int, generator: Any) -> Panel:
        t_B = t if isinstance(t, Tensor) else torch.full((batch,), t)
        return Panel((JudgedView(View("v", crop, True), t_B, tuple(heads), rows),))

    return draw


FIRST = DrawnHead(0, 0)


def drawn(**changes: Any) -> ComponentConfig:
    return flawed(ExamplePoolConfig, draw=panel(FIRST, **changes))


def all_but_the_first(sound: Any, batch: int, generator: Any) -> Panel:
    """Two heads of another view do not judge the first picture."""
    rest, view = tuple(range(1, batch)), View("rest", 0.5, True)
    of_rest = JudgedView(view, torch.ones(batch - 1), (FIRST, DrawnHead(0, 1)), rest)
    whole: Panel = panel(FIRST)(sound, batch, generator)
    return Panel((*whole.views, of_rest) if rest else whole.views)


def in_turn(sound: Any, batch: int, generator: Any) -> Panel:
    """Every picture by one head, even ones at another t* than odd ones."""
    views = [
        JudgedView(View("v", 1.0, True), torch.full((len(rows),), 10 + 500 * n), (FIRST,), rows)
        for n, rows in enumerate((tuple(range(0, batch, 2)), tuple(range(1, batch, 2))))
        if rows
    ]
    return Panel(tuple(views))


def counting() -> Any:
    """A `draw` that knows how often it was called."""
    calls: list[int] = []

    def draw(sound: Any, batch: int, generator: Any) -> Panel:
        calls.append(0)
        return panel(FIRST, t=len(calls))(sound, batch, generator)

    return draw


def meddling(part: Any, channels: Any, seed: int) -> Any:
    sound = part.draw

    def draw(batch: int, generator: Any) -> Panel:
        part.heads[0][0].weight.data.add_(1)
        return sound(batch, generator)

    part.draw = draw
    return part


DRAWS: Flaws = {
    "no heads": (flawed(ExamplePoolConfig, heads=[]), "should be an nn.ModuleList of at least"),
    "empty panel": (
        flawed(ExamplePoolConfig, draw=panel()),
        "draw(): a panel has no head",
    ),
    "no panel": (
        flawed(ExamplePoolConfig, draw=lambda *a: None),
        "draw(): gave None, not a Panel",
    ),
    "no such head": (
        flawed(ExamplePoolConfig, draw=panel(DrawnHead(0, 9))),
        "DrawnHead(level=0, head=9) is out of range: heads are 0 to 5, levels 0 to 2",
    ),
    "no such level": (
        flawed(ExamplePoolConfig, draw=panel(DrawnHead(3, 0))),
        "DrawnHead(level=3, head=0) is out of range",
    ),
    "timestep 1000": (drawn(t=1000), "t_B leaves the range 0 to 999: [1000, 1000, 1000]"),
    "one timestep": (drawn(t=torch.tensor(5)), "t_B is (), not (3,) on the CPU"),
    "timesteps of int32": (
        drawn(t=torch.ones(3, dtype=torch.int32)),
        "t_B is torch.int32; timesteps are int64, or float",
    ),
    "a batch of its own": (
        drawn(t=torch.full((3,), 10)),
        "draw(): t_B is (3,), not (1,) on the CPU: one for each picture; `batch` is 1 here",
    ),
    "crop": (drawn(crop=1.5), "view 'v' has crop 1.5, not in (0, 1]"),
    "rows": (
        drawn(rows=(2, 1), t=torch.ones(2)),
        "rows (2, 1) are not ascending pictures from 0 to 2",
    ),
    "rows elsewhere": (drawn(rows=(1, 3), t=torch.ones(2)), "rows (1, 3) are not ascending"),
    "rows of a tensor": (
        drawn(rows=torch.tensor([0, 2]), t=torch.ones(2)),
        "draw(): rows are a tensor (2,), not a tuple of whole numbers of Python, or None for all",
    ),
    "rows of a list": (drawn(rows=[0, 2], t=torch.ones(2)), "rows are [0, 2], not a tuple of who"),
    "rows of numbers": (drawn(rows=(0.0, 1.0), t=torch.ones(2)), "rows are (0.0, 1.0), not a tup"),
    "some pictures alone": (
        flawed(ExamplePoolConfig, draw=all_but_the_first),
        "draw(): heads that judge a picture are 1 for picture 0, and 3 for picture 1: equally many "
        "judge every picture of the batch, so that micro-batches add up to one larger batch",
    ),
    "timesteps of rows": (drawn(rows=(1,)), "t_B is (3,), not (1,) on the CPU"),
    "global generator": (
        flawed(ExamplePoolConfig, draw=lambda s, n, g: s(n, torch.default_generator)),
        "two processes draw different panels",
    ),
    "memory": (
        flawed(ExamplePoolConfig, draw=counting()),
        "draw(): two processes draw different panels from the same generator",
    ),
    "weights": (rebuilt(ExamplePoolConfig, meddling), "draw(): weights changed"),
    "an exception": (
        flawed(ExamplePoolConfig, draw=lambda s, n, g: {}["level"]),
        f"draw() raised KeyError: 'level' ({__file__}:",
    ),
}


def reset(change: Any) -> ComponentConfig:
    """`change(part, sound, heads, generator)` in the place of `reset`."""

    def whole(part: Any, *_: Any) -> Any:
        sound = part.reset
        part.reset = lambda heads, generator: change(part, sound, heads, generator)
        return part

    return rebuilt(ExamplePoolConfig, whole)


def keeps_biases(part: Any, sound: Any, heads: Any, generator: Any) -> None:
    for head in heads:
        nn.init.normal_(part.heads[head][0].weight, generator=generator)


def adds(part: Any, sound: Any, heads: Any, generator: Any) -> None:
    for p in (p for head in heads for p in part.heads[head].parameters()):
        p.data.add_(torch.randn(p.shape, generator=generator))


def replaces(part: Any, sound: Any, heads: Any, generator: Any) -> None:
    for head in heads:
        part.heads[head][0].bias = nn.Parameter(torch.randn(1, generator=generator))


def seeds_each(part: Any, sound: Any, heads: Any, generator: Any) -> None:
    seed = int(torch.randint(9999, (), generator=generator))
    for head in heads:
        sound([head], torch.Generator().manual_seed(seed))


def globally(part: Any, sound: Any, heads: Any, generator: Any) -> None:
    sound(heads, torch.Generator().manual_seed(int(torch.randint(10**9, ()))))


class Projected(nn.Module):
    """A head behind a random projection that is no parameter, and that `reset` does not draw."""

    def __init__(self, head: nn.Module, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mix", torch.randn(channels, channels, generator=generator))

    def forward(self, x_BChw: Tensor) -> Tensor:
        return self.head(torch.einsum("bchw,cd->bdhw", x_BChw, self.mix))


def projected(part: Any, channels: Any, seed: int) -> Any:
    rng = torch.Generator().manual_seed(seed)
    part.heads = nn.ModuleList(
        Projected(head, channels[n // part.copies], rng) for n, head in enumerate(part.heads)
    )
    return part


class Promising(ExamplePoolConfig):
    """A config that tells what is not so."""

    def draw_chance(self) -> float:
        return 2.0

    def pool_size(self, channels: tuple[int, ...]) -> PoolSize:
        return PoolSize(len(channels), 9)


RESETS: Flaws = {
    "a chance": (Promising(), "draw_chance(): 2.0 is no chance in (0, 1]"),
    "a size": (Promising(), "pool_size(): tells (3, 9), and build() makes (6, 78) heads and param"),
    "no seed": (
        rebuilt(ExamplePoolConfig, lambda p, c, s: ExamplePoolConfig().build(c, 0)),
        "build(): two seeds give the same heads: use `seed`",
    ),
    "global seed": (
        rebuilt(
            ExamplePoolConfig,
            lambda p, c, s: ExamplePoolConfig().build(c, int(torch.randint(10**9, ()))),
        ),
        "heads: two processes start with different weights: use `seed`",
    ),
    "nothing": (reset(lambda *a: None), "reset(): the head kept its weights"),
    "half": (reset(keeps_biases), "reset(): the head kept its parameter `0.bias`; write all of"),
    "a buffer": (rebuilt(ExamplePoolConfig, projected), "the head kept its buffer `mix`"),
    "other heads": (
        reset(lambda part, sound, heads, g: sound([0, 1], g)),
        "reset(): changed a head that was not to be reset",
    ),
    "without heads": (
        reset(lambda part, sound, heads, g: sound(heads or [0], g)),
        "reset(): changed a head though it was given none",
    ),
    "global generator": (reset(globally), "two processes give a head different"),
    "a constant seed": (
        reset(lambda part, sound, heads, g: sound(heads, torch.Generator().manual_seed(0))),
        "reset(): two generators give a head the same weights, so that a refresh brings the same",
    ),
    "the same to all": (reset(seeds_each), "two heads that are reset together get the same wei"),
    "added": (reset(adds), "reset(): a head's new weights depend on what it was before"),
    "replaced": (reset(replaces), "reset(): replaced a parameter; write into the old one"),
    "an exception": (
        reset(lambda part, sound, heads, g: sound([heads[0]], g)),
        "reset() raised IndexError: list index out of range",
    ),
    "no method": (
        without(ExamplePoolConfig, "reset"),
        "build() returned Cut, which has no `reset`: a pool has `draw`, `heads`, `reset`",
    ),
    "nothing built": (rebuilt(ExamplePoolConfig, lambda *a: None), "build() returned None"),
}


@table(DRAWS)
def test_a_flaw_of_the_draw_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_views_may_share_the_pictures() -> None:
    testing.check(flawed(ExamplePoolConfig, draw=in_turn))


@table(RESETS)
def test_a_flaw_of_new_weights_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_a_pool_is_checked_on_the_levels_that_are_named() -> None:
    class Narrow(ExamplePoolConfig):
        def build(self, channels: tuple[int, ...], seed: int) -> Any:
            assert channels == (8, 8)
            return super().build(channels, seed)

    testing.check(Narrow(), channels=(8, 8))
    with pytest.raises(AssertionError, match=r"build\(\) raised AssertionError"):
        testing.check(Narrow())

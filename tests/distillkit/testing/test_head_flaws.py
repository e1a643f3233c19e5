"""What the heads of a pool can get wrong. Each is told in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.configs import ComponentConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.values import DrawnHead
from tests.distillkit.testing.flaws import Flaws, flawed, rebuilt, said_of, table
from tests.distillkit.testing.test_pool_flaws import panel


class Wrapped(nn.Module):
    """A head, of which one thing is wrong."""

    def __init__(self, head: nn.Module, change: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.head, self.change, self.calls = head, change, 0
        self.register_buffer("seen", torch.zeros(()))
        self.scale = torch.ones(1)  # neither parameter nor buffer

    def forward(self, feature_BChw: Tensor) -> Tensor:
        self.calls += 1
        return self.change(self, feature_BChw)


def heads(make: Callable[[nn.Module, int], nn.Module]) -> ComponentConfig:
    """The example's pool of other heads: `make` takes a head and its channels."""

    def change(part: Any, channels: Any, seed: int) -> Any:
        levels = (channels[number // part.copies] for number in range(len(part.heads)))
        part.heads = nn.ModuleList(map(make, part.heads, levels))
        return part

    return rebuilt(ExamplePoolConfig, change)


def runs(change: Callable[[Any, Tensor], Tensor]) -> ComponentConfig:
    return heads(lambda head, channels: Wrapped(head, change))


def count(self: Any, x: Tensor) -> Tensor:
    self.seen += 1
    return self.head(x)


def tied(part: Any, channels: Any, seed: int) -> Any:
    part.heads[1][0].bias = part.heads[0][0].bias
    return part


def borrowing(part: Any, channels: Any, seed: int) -> Any:
    """Every head adds the first one's bias, which is in none of its own parameters."""
    bias = [part.heads[0][0].bias]
    part.heads = nn.ModuleList(
        Wrapped(head, lambda s, x: s.head(x) + bias[0]) for head in part.heads
    )
    return part


def alike(part: Any, channels: Any, seed: int) -> Any:
    part.heads[1].load_state_dict(part.heads[0].state_dict())
    return part


ON_META = "heads: on the meta device head 0 on level 0 (8 channels, 16x12) raised RuntimeError"
HEADS: Flaws = {
    "the wrong level": (
        flawed(ExamplePoolConfig, draw=panel(DrawnHead(1, 0))),
        "heads: head 0 on level 1 (12 channels, 8x6) raised RuntimeError: Given groups=1",
    ),
    "detached": (
        runs(lambda self, x: self.head(x.detach())),
        "no gradient passes through them to the features, so that the student would learn nothing",
    ),
    "batch norm": (
        heads(lambda head, channels: nn.Sequential(nn.BatchNorm2d(channels), head)),
        "heads: logits of a picture depend on the rest of the batch: GroupNorm does not, Batch",
    ),
    "running statistics": (
        heads(lambda head, channels: nn.Sequential(nn.BatchNorm2d(channels), head)),
        "heads: a call changed the buffer `0.running_mean`",
    ),
    "batch deviation": (
        runs(lambda self, x: self.head(x / x.std())),
        "logits of a picture depend on the rest of the batch",
    ),
    "counts in a buffer": (runs(count), "heads: a call changed the buffer `seen`"),
    "counts beside": (
        runs(lambda self, x: self.head(x) + self.calls),
        "heads: logits differ between two calls: no dropout, no counter, no random numbers",
    ),
    "dropout": (
        heads(lambda head, _: nn.Sequential(nn.Dropout2d(), head)),
        "heads: logits differ between two calls",
    ),
    "reads a value": (runs(lambda self, x: self.head(x) * float(x.detach().std())), ON_META),
    "a constant elsewhere": (runs(lambda self, x: self.head(x) + self.scale), ON_META),
    "no patches": (runs(lambda self, x: self.head(x).mean(1)), "gave (3,), not (B, K) patch log"),
    "no weights": (runs(lambda self, x: x.flatten(1)), "no gradient reaches their weights"),
    "not finite": (
        runs(lambda self, x: self.head(x) / 0),
        "heads: returned values that are not finite",
    ),
    "float64": (
        runs(lambda self, x: self.head(x).double()),
        "heads: returned values of float64, not of float32 or 16 bits",
    ),
    "nothing judged": (
        runs(lambda self, x: self.head(x)[:, :0]),
        "heads: returned no logits: a head gives at least one for each",
    ),
    "frozen": (
        heads(lambda head, _: head.requires_grad_(False)),
        "heads: a parameter asks for no gradient",
    ),
    "shared": (rebuilt(ExamplePoolConfig, tied), "heads: two heads share a parameter"),
    "borrowed": (rebuilt(ExamplePoolConfig, borrowing), "with a parameter that is not its own"),
    "alike": (rebuilt(ExamplePoolConfig, alike), "heads: two heads start with the same weights"),
    "an exception": (runs(lambda self, x: self.head(x.flatten())), "raised RuntimeError"),
}


@table(HEADS)
def test_a_flaw_of_the_heads_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)

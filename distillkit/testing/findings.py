"""What the checks share: sentences about what is wrong, and small looks at tensors and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.randomness import generator
from distillkit.values import Condition, Window

Findings = Iterator[str]
"""What is wrong, a sentence each; nothing where all is well."""

PROMPTS = ("a red ring", "a blue star", "two green squares")


def fail_with(what: str, findings: Iterable[str]) -> None:
    """Raise AssertionError with every finding, if there is one."""
    lines = list(findings)
    if lines:
        raise AssertionError("\n  ".join([f"{what} breaks its contract:", *lines]))


def noise(shape: Sequence[int], key: str) -> Tensor:
    """Standard normal, the same for the same key."""
    return torch.randn(tuple(shape), generator=generator(0, "testing", key))


def seeded(key: str | int = 0) -> torch.Generator:
    """A generator, the same for the same key."""
    return generator(0, "testing", key)


def close(one: Tensor, other: Tensor) -> bool:
    """Equal but for the rounding that another batch size brings."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-3)


def shape_of(x: Any) -> Any:
    """`(2, 4, 8, 8)` of a tensor, or what it is instead."""
    return tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__


def weights_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """A copy of every parameter and buffer."""
    return [t.detach().clone() for m in modules for t in (*m.parameters(), *m.buffers())]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Bit for bit."""
    return len(one) == len(other) and all(map(torch.equal, one, other))


def trained(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters that ask for gradients."""
    return [p for m in modules for p in m.parameters() if p.requires_grad]


def moved_by_gradient(parameters: Iterable[Tensor]) -> bool:
    """Whether a gradient other than zero has reached one of them."""
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def whole(count: int, height: int, width: int) -> Window:
    """The window that is the whole picture."""
    corner_B = torch.zeros(count, dtype=torch.int64)
    return Window(corner_B, corner_B, height, width, height, width)


def rows(cond: Condition, count: int) -> Condition:
    """The first rows."""
    return cond[slice(0, count)]

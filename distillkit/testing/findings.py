"""What the checks share: findings, the part under test, and small looks at tensors and weights.

A finding is a sentence that names the call and the rule. What a part raises becomes one too, with
the line that raised it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.errors import UserError
from distillkit.randomness import generator
from distillkit.training.guard import place_of
from distillkit.values import Condition, Window

Findings = Iterator[str]
"""What is wrong, a sentence each; nothing where all is well."""

PROMPTS = ("a red ring", "a blue star", "two green squares")


class Raised(Exception):
    """A call of the part under test failed; the message is the finding."""


def fail_with(what: str, findings: Iterable[str]) -> None:
    """Raise AssertionError with every finding, each once, if there is one."""
    lines = list(dict.fromkeys(findings))
    if lines:
        raise AssertionError("\n  ".join([f"{what} breaks its contract:", *lines]))


def each(*sections: Findings) -> Findings:
    """The findings of every section. One that is cut short by an exception ends with its sentence,
    and the others are looked at all the same."""
    for section in sections:
        try:
            yield from section
        except (Raised, UserError) as raised:
            yield str(raised)
        except Exception as error:
            yield f"what it gave can't be used: {told(error)}"


@contextmanager
def calling(call: str) -> Iterator[None]:
    """Inside, an exception becomes the finding `draw() raised KeyError: 'x' (pool.py:12)`."""
    try:
        yield
    except Raised:
        raise
    except (Exception, SystemExit) as error:
        raise Raised(f"{call} raised {told(error)}") from error


def told(error: BaseException) -> str:
    """`KeyError: 'x' (pool.py:12)`: the first line of the error, and the part's line it is from."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first} ({place_of(error)})"


class Watched:
    """The part under test: what its methods raise is a finding that names the method."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __getattr__(self, name: str) -> Any:
        with calling(name):
            value = getattr(self.part, name)
        if not inspect.isroutine(value):
            return value

        def call(*args: Any) -> Any:
            with calling(f"{name}()"):
                return value(*args)

        return call


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


def tensors_of(cond: Condition) -> list[Tensor]:
    """A copy of a condition's tensors."""
    return [t.clone() for t in cond.tensors.values()]


def weights_of(modules: Iterable[nn.Module]) -> list[Tensor]:
    """A copy of every parameter and buffer."""
    return [t.detach().clone() for m in modules for t in (*m.parameters(), *m.buffers())]


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Bit for bit, and of the same number formats."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


def trained(modules: Iterable[nn.Module]) -> list[nn.Parameter]:
    """Parameters that ask for gradients."""
    return [p for m in modules for p in m.parameters() if p.requires_grad]


@torch.no_grad()
def perturb(parameters: Iterable[Tensor], key: str) -> None:
    """As if they had been trained: what is new may give every picture the same, such as 0."""
    for place, p in enumerate(parameters):
        p.add_(0.1 * noise(p.shape, f"trained {key} {place}").to(p))


def moved_by_gradient(parameters: Iterable[Tensor]) -> bool:
    """Whether a gradient other than zero has reached one of them."""
    return any(p.grad is not None and bool(p.grad.any()) for p in parameters)


def leaves(value: Tensor) -> list[Tensor]:
    """The leaves that a backward pass from `value` gives a gradient to."""
    found: dict[int, Tensor] = {}
    nodes, seen = [value.grad_fn], set()
    while nodes:
        node: Any = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found[id(node.variable)] = node.variable
        nodes += [following for following, _ in node.next_functions]
    return list(found.values())


def strangers(value: Tensor, known: Iterable[Tensor]) -> int:
    """How many leaves of `value` are none of the `known` tensors."""
    ids = {id(t) for t in known}
    return sum(id(leaf) not in ids for leaf in leaves(value))


def modules_of(part: Any) -> list[nn.Module]:
    """What the part lists. Raises `Raised` where those are no networks."""
    listed = part.modules()
    if not isinstance(listed, list | tuple | nn.ModuleList) or not all(
        isinstance(module, nn.Module) for module in listed
    ):
        raise Raised(f"modules(): gave {listed!r}, not a list of networks")
    return list(listed)


def networks_of(part: Any) -> dict[str, nn.Module]:
    """Networks in the part's attributes, and in lists and mappings there, by attribute."""
    found = {}
    for name, value in vars(part).items() if hasattr(part, "__dict__") else ():
        inner = value.values() if isinstance(value, dict) else value
        for each_value in inner if isinstance(inner, Iterable) else [inner]:
            if isinstance(each_value, nn.Module):
                found[name] = each_value
        if isinstance(value, nn.Module):
            found[name] = value
    return found


def unlisted(part: Any, listed: Iterable[nn.Module]) -> Iterator[str]:
    """Networks in the part's attributes that are in none of the `listed` ones."""
    known = {id(t) for m in listed for t in (*m.parameters(), *m.buffers())}
    for name, network in networks_of(part).items():
        if any(id(t) not in known for t in (*network.parameters(), *network.buffers())):
            yield (
                f"modules(): the network in `{name}` is missing, so that nobody would move it to "
                "the device"
            )


class Snapshot:
    """Networks that should stay as they are: weights, buffers, modes, who asks for gradients."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.modules = list(modules)
        self.weights, self.modes = weights_of(self.modules), self._modes()

    def changes(self) -> Iterator[str]:
        """What is different now, as the end of a sentence."""
        if not same(self.weights, weights_of(self.modules)):
            yield "weights moved while it was used: frozen should stay frozen"
        for (asks, trains), (asked, trained) in zip(self._modes(), self.modes, strict=True):
            if trains - trained:
                yield "network was put into train mode"
            if trained - trains:
                yield "network was put into eval mode"
            if asks != asked:
                yield "parameters ask for gradients" if asks else "parameters lost their gradients"

    def _modes(self) -> list[tuple[bool, set[nn.Module]]]:
        """Of each: whether a parameter asks for gradients, and all inside that is in train mode."""
        return [
            (any(p.requires_grad for p in m.parameters()), {s for s in m.modules() if s.training})
            for m in self.modules
        ]


def whole(count: int, height: int, width: int) -> Window:
    """The window that is the whole picture."""
    corner_B = torch.zeros(count, dtype=torch.int64)
    return Window(corner_B, corner_B, height, width, height, width)

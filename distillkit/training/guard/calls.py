"""Calls of a part that may come from anywhere: a run, its evaluation, a plan, `sample`.

Each is guarded where the part is built, so that no caller has to think of it. What pool, backbone,
refresh policy and loss return in an iteration is looked at there, beside what it should fit.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any

from torch import Tensor, nn

from distillkit import contracts, exchange
from distillkit.training.guard import Guard
from distillkit.training.guard.returns import (
    check_condition,
    check_modules,
    check_pictures,
    check_prompts,
    check_samples,
    check_stage,
    check_steps,
    check_values,
)

PROTOCOLS: dict[str, Any] = {
    "teacher": contracts.Teacher,
    "student": contracts.StudentNetwork,
    "backbone": contracts.Backbone,
    "pool": contracts.Pool,
    "refresh": contracts.Refresh,
    "loss": contracts.Loss,
    "refinement": contracts.Refinement,
    "metrics": contracts.Metrics,
    "exporter": exchange.Exporter,
    "layout": exchange.Layout,
}
"""What `build` returns, by socket; prompts are any sequence."""

Flaw = Callable[..., str | None]
"""What is wrong with the value of a call: `flaw(part, value, *arguments)`."""


def _listed(part: Any, value: Any) -> str | None:
    return check_modules(value)


def _decoded(teacher: Any, images_B3HW: Any, x_0_BCHW: Tensor) -> str | None:
    whole = tuple(x_0_BCHW.shape[1:]) == tuple(teacher.latent_shape)  # critics decode crops too
    return check_pictures(images_B3HW, len(x_0_BCHW), teacher.image_size if whole else None)


CALLS: Mapping[str, Mapping[str, Flaw]] = {
    "teacher": {
        "encode": lambda part, value, prompts: check_condition(value, len(prompts)),
        "null": lambda part, value, count: None if value is None else check_condition(value, count),
        "sample": lambda part, value, x_T_BCHW, *_: check_samples(value, x_T_BCHW.shape),
        "decode": _decoded,
        "encode_images": lambda part, value, images_B3HW: check_samples(
            value, (len(images_B3HW), *part.latent_shape)
        ),
        "to": lambda part, value, device: None,
        "modules": _listed,
    },
    "student": {"publish": lambda part, value, folder, *_: _nothing_in(folder)},
    "backbone": {"modules": _listed},
    "loss": {"modules": _listed},
    "metrics": {
        "prompts": lambda part, value, count, seed: check_prompts(value, count),
        "compute": lambda part, value, *_: check_values(value, part.info),
    },
}
"""Calls whose first value is looked at, by socket and method."""

EVERY_CALL: Mapping[str, Mapping[str, Flaw]] = {
    "refinement": {
        "stage": lambda part, value, iteration: check_stage(value),
        "steps": lambda part, value, iteration, generator: check_steps(value),
    },
}
"""Calls whose every value is looked at: a few numbers, which may go wrong late in a run."""


def members_of(socket: str) -> list[str]:
    """Attributes and methods that the contract of a socket names."""
    if socket not in PROTOCOLS:
        return ["__len__", "__getitem__"]
    kinds = [
        kind for kind in PROTOCOLS[socket].__mro__ if kind.__module__.startswith("distillkit.")
    ]
    names = {name for kind in kinds for name in (*vars(kind), *kind.__annotations__)}
    return sorted(n for n in names if not n.startswith("_") or n == "__call__")


def check_built(socket: str, part: Any) -> str | None:
    """What is wrong with what `build` returned, if anything."""
    if part is None:
        return "returned None"
    if missing := [name for name in members_of(socket) if not hasattr(part, name)]:
        return f"returned {type(part).__name__}, which has no `{'`, `'.join(missing)}`"
    if socket == "pool" and not (isinstance(part.heads, nn.ModuleList) and len(part.heads)):
        return "returned a pool whose `heads` is no nn.ModuleList of at least one head"
    if socket == "pool" and not any(p.requires_grad for p in part.heads.parameters()):
        return "returned a pool whose heads have no parameter that trains"
    if socket == "backbone" and not all(type(n) is int and n > 0 for n in part.channels):
        return f"returned a backbone with the channels {part.channels!r}"
    if socket == "refinement" and (type(part.iterations) is not int or part.iterations < 1):
        return f"returned a refinement of {part.iterations!r} iterations, not of 1 or more"
    if socket == "metrics" and not isinstance(part.info, Mapping):
        return f"returned metrics whose `info` is {part.info!r}, not MetricInfo by name"
    if socket == "prompts" and isinstance(part, str):
        return "returned one string, not a sequence of prompts"
    return None


def guarded(part: Any, socket: str, guard: Guard) -> Any:
    """The same part, whose calls raise `PartError` for what goes wrong in them.

    Prompts are read by index and may be a plain list: they are wrapped.
    """
    if socket == "prompts":
        return (PromptsWithPictures if hasattr(part, "images") else Prompts)(part, guard)
    for calls, check in ((CALLS, guard.once), (EVERY_CALL, guard.check)):
        for name, flaw in calls.get(socket, {}).items():
            call = _guarded(part, getattr(part, name), f"{name}()", flaw, guard, check)
            with suppress(AttributeError):  # a class with __slots__ speaks for itself
                object.__setattr__(part, name, call)  # some parts are frozen dataclasses
    return part


def _guarded(
    part: Any, inner: Any, call: str, flaw: Flaw, guard: Guard, check: Callable[..., None]
) -> Callable[..., Any]:
    @wraps(inner)
    def guarded_call(*args: Any, **named: Any) -> Any:
        with guard(call):
            value = inner(*args, **named)
        check(call, lambda: flaw(part, value, *args, *named.values()))
        return value

    return guarded_call


class Prompts(Sequence[str]):
    """Prompts by index."""

    def __init__(self, source: Any, guard: Guard) -> None:
        self._source, self._guard = source, guard

    def __len__(self) -> int:
        with self._guard("len()"):
            return len(self._source)

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        with self._guard(f"prompt {index}"):
            prompt = self._source[index]
        if not isinstance(prompt, str):
            self._guard.check(f"prompt {index}", lambda: f"is {prompt!r}, not a line of text")
        return prompt


class PromptsWithPictures(Prompts):
    """Captions and their pictures: `contracts.PictureSource`."""

    def images(self, indices: Sequence[int], height: int, width: int) -> Tensor:
        """The pictures (B, 3, height, width) at these indices."""
        with self._guard("images()"):
            images_B3HW: Tensor = self._source.images(indices, height, width)
        size = (height, width)
        self._guard.once("images()", lambda: check_pictures(images_B3HW, len(indices), size))
        return images_B3HW

    def digest(self) -> str:
        """What changes when a picture does."""
        with self._guard("digest()"):
            digest: str = self._source.digest()
        return digest


def _nothing_in(folder: Any) -> str | None:
    return None if any(folder.rglob("*")) else f"wrote nothing to {folder}"

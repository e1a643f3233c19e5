"""Contract of `outline`: networks of the sizes that `build` makes, so that plans are true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from distillkit.configs import ComponentConfig
from distillkit.testing.findings import Findings, calling


def outline(config: ComponentConfig, *args: Any) -> Findings:
    """Parameter by parameter: name, shape, number format; and whether it trains."""
    if type(config).outline is ComponentConfig.outline:
        return  # `build` itself
    with calling("build()"):
        built = _sizes(config.build(*args), config.socket)  # type: ignore[attr-defined]
    with calling("outline()"):
        outlined = _sizes(config.outline(*args), config.socket)
    if missing := sorted(built.keys() - outlined.keys()):
        yield f"outline(): {missing[0]} is missing (and {len(missing) - 1} more)"
    if more := sorted(outlined.keys() - built.keys()):
        yield f"outline(): {more[0]} is not in what build() makes (and {len(more) - 1} more)"
    both = [name for name in built if name in outlined]
    if other := [name for name in both if built[name] != outlined[name]]:
        name = other[0]
        yield (
            f"outline(): {name} is {outlined[name]}, and {built[name]} in what build() makes "
            f"(and {len(other) - 1} more)"
        )


def _sizes(part: Any, socket: str) -> dict[str, tuple[Any, ...]]:
    modules: Sequence[nn.Module]
    if socket == "pool":
        modules = list(part.heads)
    else:
        modules = [part.module] if socket == "student" else part.modules()
    # A teacher is frozen only after it was built.
    trains = socket != "teacher"
    return {
        f"network {place}, {name}": (tuple(p.shape), p.dtype, *([p.requires_grad] * trains))
        for place, module in enumerate(modules)
        for name, p in module.named_parameters()
    }

"""Parts under test, built as one process or another would, with all that their contract names."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from distillkit import contracts, exchange
from distillkit.configs import ComponentConfig
from distillkit.testing.findings import Raised, Watched, calling

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


def built(config: ComponentConfig, *args: Any, process: int = 1) -> Any:
    """The part that the config builds; processes have their global generators in other states.

    Raises `Raised` where `build` fails, returns None, or something without what the contract names.
    """
    with _generators_of(process), calling("build()"):
        part = config.build(*args)  # type: ignore[attr-defined]
    if part is None:
        raise Raised("build() returned None: return the part that it made")
    wanted = _members(config.socket)
    with calling("build(): a look at the part's attributes"):
        missing = [name for name in wanted if not hasattr(part, name)]
    if missing:
        raise Raised(
            f"build() returned {type(part).__name__}, which has no `{'`, `'.join(missing)}`: "
            f"a {config.socket} has `{'`, `'.join(wanted)}`"
        )
    return Watched(part)


def _members(socket: str) -> list[str]:
    """Attributes and methods that the protocol of a socket names."""
    if socket not in PROTOCOLS:
        return ["__len__", "__getitem__"]
    kinds = [
        kind for kind in PROTOCOLS[socket].__mro__ if kind.__module__.startswith("distillkit.")
    ]
    names = {name for kind in kinds for name in (*vars(kind), *kind.__annotations__)}
    return sorted(n for n in names if not n.startswith("_") or n == "__call__")


@contextmanager
def _generators_of(process: int) -> Iterator[None]:
    """Inside, the global generators of torch, NumPy and Python are in the state of a process."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(process)
        np.random.seed(process)
        random.seed(process)
        try:
            yield
        finally:
            np.random.set_state(numpy)
            random.setstate(python)

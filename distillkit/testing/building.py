"""Parts under test, built as one process or another would, with all that their contract names."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from distillkit.configs import ComponentConfig
from distillkit.testing.findings import Raised, Watched, calling
from distillkit.training.guard.calls import members_of


def built(config: ComponentConfig, *args: Any, process: int = 1) -> Any:
    """The part that the config builds; processes have their global generators in other states.

    Raises `Raised` where `build` fails, returns None, or something without what the contract names.
    """
    with _generators_of(process), calling("build()"):
        part = config.build(*args)  # type: ignore[attr-defined]
    if part is None:
        raise Raised("build() returned None: return the part that it made")
    wanted = members_of(config.socket)
    with calling("build(): a look at the part's attributes"):
        missing = [name for name in wanted if not hasattr(part, name)]
    if missing:
        raise Raised(
            f"build() returned {type(part).__name__}, which has no `{'`, `'.join(missing)}`: "
            f"a {config.socket} has `{'`, `'.join(wanted)}`"
        )
    return Watched(part)


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

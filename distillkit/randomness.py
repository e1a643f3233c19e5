"""Randomness is a function of its purpose: no global generator, nothing to save, nothing to lose.

A draw is keyed by `(seed, *key)`, for instance `(0, "panel", 1200)`. The same key gives the same
numbers in an unbroken run, in a resumed one, and on every rank; so a checkpoint holds no RNG state.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch


def key_to_seed(seed: int, *key: str | int) -> int:
    """A 63-bit integer that depends on every part of the key."""
    text = "\x1f".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *key: str | int) -> torch.Generator:
    """A CPU generator for one purpose; draws are moved to the device after they are made."""
    import torch

    return torch.Generator().manual_seed(key_to_seed(seed, *key))


def noise(
    shape: tuple[int, ...], seed: int, purpose: str, ids: Iterable[int], device: Any = "cpu"
) -> torch.Tensor:
    """Standard normal noise, one picture an id: `(len(ids), *shape)`, float32.

    Drawn on the CPU, whatever the device, and sent there at once. A picture's noise depends on its
    id alone, so batch size and world size do not change it.
    """
    import torch

    from distillkit.values import sent

    draws = [torch.randn(shape, generator=generator(seed, purpose, i)) for i in ids]
    return sent(torch.stack(draws), device)

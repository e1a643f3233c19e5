"""Networks with weights of 16 bits are computed in them, whatever surrounds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def own_format(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Inside, a network of `dtype` is computed as its pipeline computes it, without autocast.

    Autocast is for weights in float32, and leaves these alone. Weights of 16 bits it computes in
    them too, but norms and softmax in float32, with a rounding before and after.
    """
    if dtype == torch.float32:
        yield
        return
    # A plan's device has no autocast of its own, and the CPU's stands for it.
    with torch.autocast("cpu" if device.type == "meta" else device.type, enabled=False):
        yield

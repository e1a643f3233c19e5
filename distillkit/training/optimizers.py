"""The players' optimizers: AdamW, with moments of 32 bits or of 8, and what they take of memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from distillkit.errors import UserError
from distillkit.recipe.schema import AdamW

SMALLEST_8BIT, BLOCK = 4096, 256
"""bitsandbytes' own: tensors with fewer values keep float32 moments; values that share a scale."""
QMAP = 256 * 4
"""Bytes of a table that turns 8 bits into numbers; one a moment, shared by all tensors."""

Group = tuple[Sequence[nn.Parameter], AdamW]


def make_optimizer(*groups: Group) -> Optimizer:
    """AdamW over groups of parameters; those without a gradient are passed over when it steps.

    The first group says how many bits the moments have. Raises `UserError` where bitsandbytes is
    needed and missing.
    """
    filled = [(list(parameters), optim) for parameters, optim in groups if parameters]
    groups_of = [{"params": parameters} | numbers(optim) for parameters, optim in filled]
    if filled[0][1].bits == 32:
        return torch.optim.AdamW(groups_of, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "optim: AdamW with 8 bits needs bitsandbytes; install it with "
            "pip install 'distillkit[8bit]', or set bits to 32"
        ) from None
    return AdamW8bit(groups_of)


def numbers(optim: AdamW) -> dict[str, Any]:
    """What an AdamW takes for a group."""
    return {"lr": optim.lr, "betas": optim.betas, "weight_decay": optim.weight_decay}


def moments_bytes(parameters: Iterable[nn.Parameter], optim: AdamW) -> int:
    """Bytes of the state of an optimizer that has stepped every parameter once.

    32 bits: two moments and a count, all float32. 8 bits: a byte a moment and value, and a float32
    scale a block.
    """
    sizes = [p.numel() for p in parameters]
    if optim.bits == 32:
        return sum(2 * 4 * size + 4 for size in sizes)
    small = [size for size in sizes if size < SMALLEST_8BIT]
    large = [size for size in sizes if size >= SMALLEST_8BIT]
    blocks = sum(-(-size // BLOCK) for size in large)
    return 8 * sum(small) + 2 * sum(large) + 8 * blocks + (2 * QMAP if large else 0)

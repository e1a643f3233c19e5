"""Logits of one pass of the heads, from which each player's gradient goes its own way.

Both players' gradients are taken at the same weights: the critics' reaches the heads' weights, the
student's the feature maps of the fake pictures. So one pass serves both, and only its graph is
walked twice, each time as far as the player asks.

Legend: B batch, K patch logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def passed_on(
    logits: Sequence[Tensor], inputs: Sequence[Tensor], leaves: Sequence[Tensor]
) -> list[Tensor]:
    """The same logits (B, K), whose gradient reaches `inputs` and nothing else.

    `leaves`, distinct, are what the logits' own graph has in the place of `inputs`: the inputs
    themselves, or detached copies. That graph is kept, so that it can be walked again. There is no
    second derivative.
    """
    return list(_PassedOn.apply(tuple(logits), tuple(leaves), *inputs))


class _PassedOn(torch.autograd.Function):
    """Identity of the logits; backwards it walks their own graph down to the leaves."""

    @staticmethod
    def forward(
        ctx: Any, logits: tuple[Tensor, ...], leaves: tuple[Tensor, ...], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)  # a loss may use some heads alone
        ctx.logits, ctx.leaves = logits, leaves
        return tuple(each.detach() for each in logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.logits, gradients, strict=True)
        asked = [(logits, gradient) for logits, gradient in pairs if gradient is not None]
        needed = [n for n, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        given = torch.autograd.grad(
            [logits for logits, _ in asked],
            [ctx.leaves[n] for n in needed],
            [gradient for _, gradient in asked],
            retain_graph=True,
            allow_unused=True,
        )
        found: list[Tensor | None] = [None] * len(ctx.leaves)
        for n, gradient in zip(needed, given, strict=True):
            found[n] = gradient
        return (None, None, *found)

"""The best low-rank part of a matrix, and what a student's network starts with beside the teacher.

A start is `teacher`, a model or file, or `A - B`: the difference of two, such as a turbo and its
base, which is added to the teacher's weights. Importing this needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Change = Callable[[str], Tensor]
    """Name of a weight -> what is added to it, float32."""

MINUS = " - "
"""Between the two models of a difference."""


def start_terms(start: str) -> list[str]:
    """The models that a student's `start` names: none, one, or the two of a difference."""
    return [] if start == "teacher" else [term.strip() for term in start.split(MINUS, 1)]


def low_rank(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """Down (rank, columns), up (rows, rank), and the squared Frobenius norm of what they keep.

    delta = U S V; down = sqrt(S_r) V_r, up = U_r sqrt(S_r): the best approximation of its rank
    (Eckart-Young theorem), padded with zeros where the matrix has less. Convolutions are matrices
    (out, in * k * k).
    """
    import torch
    from torch.nn.functional import pad

    device = "cuda" if torch.cuda.is_available() else "cpu"
    U, S, V = torch.linalg.svd(delta.to(device, torch.float32).flatten(1), full_matrices=False)
    root, more = S[:rank].sqrt(), max(0, rank - len(S))
    down, up = root[:, None] * V[:rank], U[:, :rank] * root
    kept = float(S[:rank].double().square().sum())
    return pad(down, (0, 0, 0, more)), pad(up, (0, more)), kept

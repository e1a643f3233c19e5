"""Approximate R1 (APT, Lin et al. 2025): keeps the critics smooth around the samples.

Legend: B batch, K patch logits of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from distillkit.configs import Config

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class ApproximateR1:
    """weight * E[(D(x_t) - D(x_t + sigma n))^2], n ~ N(0, I)  (APT, section 3.4).

    It replaces R1's second derivative by one more backbone pass. The copy is perturbed after
    noising to t*: with noise added to x_0, the two inputs would differ by less than sigma.
    """

    weight: float
    sigma: float

    def __call__(self, logits: Sequence[Tensor], perturbed: Sequence[Tensor]) -> Tensor:
        """The penalty for these logits_BK and those of the perturbed copy, averaged over heads."""
        gaps = [a_BK - b_BK for a_BK, b_BK in zip(logits, perturbed, strict=True)]
        terms = [gap_BK.square().mean() for gap_BK in gaps]
        return self.weight * mean_over_heads(terms, [len(gap_BK) for gap_BK in gaps])


def mean_over_heads(losses: Sequence[Tensor], pictures: Sequence[int]) -> Tensor:
    """Mean of one scalar a head, each weighted by the pictures that the head judged.

    So a picture counts alike whether many or few share its head, and micro-batches add up.
    """
    import torch

    losses_N = torch.stack(list(losses))
    if len(set(pictures)) == 1:
        return losses_N.mean()
    weights_N = torch.tensor(pictures, dtype=losses_N.dtype, device=losses_N.device)
    return (losses_N * weights_N).sum() / weights_N.sum()


class ApproximateR1Config(Config):
    """Approximate R1 penalty of the critics."""

    weight: float = Field(100.0, gt=0)
    """Factor of the penalty (APT: 100)."""
    sigma: float = Field(0.01, gt=0)
    """Standard deviation of the noise that is added to the judged x_t (APT: 0.01)."""

    def build(self) -> ApproximateR1:
        return ApproximateR1(self.weight, self.sigma)

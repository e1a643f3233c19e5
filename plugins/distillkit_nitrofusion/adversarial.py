"""The adversarial loss over a panel of heads (paper, section 3.2), with approximate R1.

Legend: B batch, K patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillkit.contracts import TrainBatch
from distillkit.errors import UserError
from distillkit.values import HeadLogits
from distillkit_nitrofusion.objectives import Objective


@dataclass(frozen=True)
class ApproximateR1:
    """weight * E[(D(x_t) - D(x_t + sigma n))^2], n normal  (APT, Lin et al. 2025).

    Holds the critic flat around real pictures at the price of one more backbone pass, without a
    second derivative. The copy is perturbed after it was noised: with noise added to x_0 the two
    would differ by more than sigma says.
    """

    weight: float
    sigma: float

    def __call__(self, real: Sequence[Tensor], batch: TrainBatch) -> Tensor:
        """The penalty for these logits_BK of the real pictures, averaged over heads."""
        perturbed = batch.perturbed_real_logits(self.sigma)
        samples = zip(real, perturbed, strict=True)
        return self.weight * mean([(a_BK - b_BK).square().mean() for a_BK, b_BK in samples])


class AdversarialLoss:
    """An objective on each drawn head, averaged over heads (section 3.2 sums)."""

    def __init__(
        self, objective: Objective, r1: ApproximateR1 | None = None, clip: float | None = None
    ) -> None:
        """`clip`: bound of every weight of a head after its step; none leaves them free."""
        self.objective = objective
        self.r1 = r1
        self.clip = clip

    def critic(self, batch: TrainBatch) -> Tensor:
        """Scalar for the drawn heads."""
        head_logits = some(batch.critic_logits())
        loss = mean([self.objective.critic(v.real_BK, v.fake_BK) for v in head_logits])
        if self.r1 is not None:
            loss = loss + self.r1([v.real_BK for v in head_logits], batch)
        return loss

    def student(self, batch: TrainBatch) -> Tensor:
        """Scalar for the student."""
        head_logits = some(batch.student_logits())
        return mean([self.objective.student(v.real_BK, v.fake_BK) for v in head_logits])

    @torch.no_grad()
    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Weight clipping (Arjovsky et al. 2017, algorithm 1, line 7), if there is a bound."""
        if self.clip is not None:
            for head in heads:
                for weight in head.parameters():
                    weight.clamp_(-self.clip, self.clip)

    def modules(self) -> Sequence[nn.Module]:
        """None: the heads belong to the pool."""
        return []


def some(head_logits: Sequence[HeadLogits]) -> Sequence[HeadLogits]:
    """The verdicts, if there are any; otherwise the recipe asks for what it does not have."""
    if not head_logits:
        raise UserError(
            "an adversarial loss has no heads to ask: it needs a backbone and a pool, and has no "
            "place in warmup.losses, where the student is alone"
        )
    return head_logits


def mean(losses: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(losses)).mean()

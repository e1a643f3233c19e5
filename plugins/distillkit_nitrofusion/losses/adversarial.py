"""The adversarial loss over a panel of heads (section 3.2): an objective on each head, averaged.

Legend: B batch, K patch logits of a head; logits are higher for the teacher's samples (real).
Terms are means over patches and batch, and the panel's loss is the mean over its heads, where the
paper sums over heads: so the learning rate does not depend on the panel's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from distillkit.configs import LossConfig
from distillkit.errors import UserError
from distillkit_nitrofusion.losses.r1 import ApproximateR1, ApproximateR1Config, mean_over_heads

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillkit.contracts import StudentNetwork, Teacher, TrainBatch
    from distillkit.values import HeadLogits


class Term(Protocol):
    """One player's term on the logits of one head: a scalar that the player minimises."""

    def __call__(self, *, real_BK: Tensor, fake_BK: Tensor) -> Tensor:
        """By keyword alone, so that real and fake cannot be passed in the wrong order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What the two players minimise."""

    critic: Term
    student: Term


def assert_paired(*, real_BK: Tensor, fake_BK: Tensor) -> None:
    """Both are patch logits (B, K) of the same head for paired samples."""
    assert real_BK.ndim == 2, f"logits must be (B, K), not {tuple(real_BK.shape)}"
    assert real_BK.shape == fake_BK.shape, f"{tuple(real_BK.shape)} and {tuple(fake_BK.shape)}"


class AdversarialLoss:
    """`distillkit.contracts.Loss`: an objective on every drawn head, averaged over heads."""

    def __init__(
        self,
        objective: Objective,
        r1: ApproximateR1 | None = None,
        r2: ApproximateR1 | None = None,
        clip: float | None = None,
    ) -> None:
        """`clip`: bound of every weight of a head after its step; None leaves weights unbounded."""
        self.objective = objective
        self.r1, self.r2 = r1, r2
        self.clip = clip

    def critic(self, batch: TrainBatch) -> Tensor:
        """L_adv^D of section 3.2, and the gradient penalties: a scalar for the drawn heads."""
        drawn = at_least_one(batch.critic_logits())
        loss = mean_over_heads(
            [self.objective.critic(real_BK=h.real_BK, fake_BK=h.fake_BK) for h in drawn],
            [len(h.real_BK) for h in drawn],
        )
        if self.r1 is not None:
            perturbed = batch.perturbed_real_logits(self.r1.sigma)
            loss = loss + self.r1([h.real_BK for h in drawn], perturbed)
        if self.r2 is not None:
            perturbed = batch.perturbed_fake_logits(self.r2.sigma)
            loss = loss + self.r2([h.fake_BK for h in drawn], perturbed)
        return loss

    def student(self, batch: TrainBatch) -> Tensor:
        """L_adv^G of section 3.2: a scalar for the student."""
        drawn = at_least_one(batch.student_logits())
        return mean_over_heads(
            [self.objective.student(real_BK=h.real_BK, fake_BK=h.fake_BK) for h in drawn],
            [len(h.fake_BK) for h in drawn],
        )

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Weight clipping (Arjovsky et al. 2017, algorithm 1, line 7), where a bound is given."""
        import torch

        if self.clip is None:
            return
        with torch.no_grad():
            for head in heads:
                for weight in head.parameters():
                    weight.clamp_(-self.clip, self.clip)

    def modules(self) -> Sequence[nn.Module]:
        """None: the heads belong to the pool."""
        return []


def at_least_one(head_logits: Sequence[HeadLogits]) -> Sequence[HeadLogits]:
    """The logits unchanged. Raises `UserError` where the recipe has no heads."""
    if not head_logits:
        raise UserError(
            "an adversarial loss found no heads: it needs a backbone and a pool, and can't be one "
            "of warmup.losses, where the student trains alone"
        )
    return head_logits


class AdversarialConfig(LossConfig):
    """The fields of every adversarial loss."""

    objective: ClassVar[Objective]
    uses_critics: ClassVar[bool | None] = True
    r1: ApproximateR1Config | None = None
    """Approximate R1 penalty of the critics, around real samples; null for none."""
    r2: ApproximateR1Config | None = None
    """The same around fake samples (R3GAN has both); null for none."""

    def build(self, teacher: Teacher, student: StudentNetwork) -> AdversarialLoss:
        return AdversarialLoss(self.objective, *self.penalties())

    def penalties(self) -> tuple[ApproximateR1 | None, ApproximateR1 | None]:
        """The penalties that `r1` and `r2` ask for."""
        r1, r2 = self.r1, self.r2
        return (r1.build() if r1 else None, r2.build() if r2 else None)

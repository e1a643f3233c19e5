"""One micro-batch of real and fake samples; samples and logits are made when a loss asks for them.

Legend: B batch, C latent channels, H, W latent cells, K patch logits of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from distillkit.randomness import generator, noise
from distillkit.training.models.critic import Critic
from distillkit.training.models.panel_pass import PanelPass
from distillkit.values import Condition, HeadLogits, Panel, sent


@dataclass
class LazySamples:
    """The samples of a micro-batch. Batch and panel passes share them and not each other: whatever
    they hold is freed with the last reference, in the iteration that made it."""

    make_real: Callable[[], Tensor]
    make_fake: Callable[[], Tensor]

    @cached_property
    def real_BCHW(self) -> Tensor:
        """x_0, the teacher's sample."""
        return self.make_real()

    @property
    def real_is_made(self) -> bool:
        """Whether anybody has asked for the teacher's sample."""
        return "real_BCHW" in self.__dict__

    @cached_property
    def rollout_BCHW(self) -> Tensor:
        """The student's sample with its graph."""
        return self.make_fake()

    @cached_property
    def fake_BCHW(self) -> Tensor:
        """x_0-hat, the student's sample.

        A leaf of its own: losses put their gradients on it, and they reach the student together.
        So each loss's gradient at x_0-hat is known, and the losses' graphs are freed before the
        student's is run backwards.
        """
        leaf = self.rollout_BCHW.detach()
        return leaf.requires_grad_(self.rollout_BCHW.requires_grad)


@dataclass(kw_only=True)
class LazyTrainBatch:
    """`contracts.TrainBatch`. Without panels (no pool, or the student's warm-up) no logits."""

    iteration: int
    x_T_BCHW: Tensor
    cond: Condition
    null: Condition | None
    make_real: Callable[[], Tensor]
    make_fake: Callable[[], Tensor]
    """The student's roll-out; with its graph where the student trains."""
    steps: int
    positions: Sequence[int]
    """The pictures' numbers in the run: random draws are keyed by them, so any split of a batch
    into micro-batches and processes sees the same draws."""
    seed: int
    panels: Sequence[tuple[Critic, Panel]] = ()
    critics_alone: bool = False
    """Whether the student learns from no logits, or from those of heads that were updated since."""
    heads_updated: bool = field(default=False, init=False)
    """Whether the heads were updated since the critics' logits: set for alternating updates."""
    student_reads: int = field(default=0, init=False)
    """How often losses have asked for the student's logits: those are adversarial."""

    @cached_property
    def samples(self) -> LazySamples:
        """What all panel passes look at."""
        return LazySamples(self.make_real, self.make_fake)

    @property
    def real_BCHW(self) -> Tensor:
        """x_0, the teacher's sample."""
        return self.samples.real_BCHW

    @property
    def rollout_BCHW(self) -> Tensor:
        """The student's sample with its graph; `backward_student` runs it."""
        return self.samples.rollout_BCHW

    @property
    def fake_BCHW(self) -> Tensor:
        """x_0-hat, the student's sample: a leaf that losses put their gradients on."""
        return self.samples.fake_BCHW

    def noise(self, purpose: str) -> Tensor:
        """Standard normal noise (B, C, H, W) for a loss; the same at every call."""
        shape = self.x_T_BCHW.shape[1:]
        device = self.x_T_BCHW.device
        return noise(shape, self.seed, f"loss {purpose}", self.positions, device)

    def timesteps(self, purpose: str, low: int, high: int) -> Tensor:
        """Timesteps (B,) from `low` up to, not including, `high`; the same at every call."""
        draws = [generator(self.seed, f"loss {purpose}", "timesteps", p) for p in self.positions]
        t_B = torch.stack([torch.randint(low, high, (), generator=rng) for rng in draws])
        return sent(t_B, self.x_T_BCHW.device)

    @cached_property
    def passes(self) -> list[PanelPass]:
        """One for each critic's panel."""
        return [
            PanelPass(
                critic=critic,
                panel=panel,
                real=partial(getattr, self.samples, "real_BCHW"),
                fake=partial(getattr, self.samples, "fake_BCHW"),
                cond=self.cond,
                null=self.null,
                positions=self.positions,
                seed=self.seed,
                critics_alone=self.critics_alone,
            )
            for critic, panel in self.panels
        ]

    def critic_logits(self) -> Sequence[HeadLogits]:
        """Logits whose gradients reach the drawn heads and nothing else."""
        return [logits for each in self.passes for logits in each.critic_logits]

    def student_logits(self) -> Sequence[HeadLogits]:
        """Logits whose gradients reach the student through `fake_BK` and nothing else."""
        self.student_reads += 1
        return self._student_logits

    @cached_property
    def _student_logits(self) -> list[HeadLogits]:
        return [
            logits for each in self.passes for logits in each.student_logits(self.heads_updated)
        ]

    def perturbed_real_logits(self, sigma: float) -> Sequence[Tensor]:
        """Logits of the real pictures, perturbed after noising to t*: one more backbone pass."""
        return [logits for each in self.passes for logits in each.perturbed("real", sigma)]

    def perturbed_fake_logits(self, sigma: float) -> Sequence[Tensor]:
        """The same of the fake pictures, detached from the student."""
        return [logits for each in self.passes for logits in each.perturbed("fake", sigma)]

    def judged_logits(self) -> list[HeadLogits]:
        """The critics' logits that a loss has asked for."""
        judged = (each for each in self.passes if each.is_judged)
        return [logits for each in judged for logits in each.critic_logits]

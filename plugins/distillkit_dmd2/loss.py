"""Distribution matching with a fake score that learns the student's pictures (DMD2).

Legend: B batch, C channels, H, W latent cells.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from distillkit.contracts import Denoiser, Teacher, TrainBatch
from distillkit.values import Condition


class DistributionMatching:
    """Fulfils `distillkit.contracts.Loss`. The fake score starts as a copy of the teacher."""

    def __init__(self, teacher: Teacher, low: int, high: int, guidance: float) -> None:
        self.teacher, self.guidance = teacher, guidance
        self.low, self.high = low, high
        self.fake_score: Denoiser = copy.deepcopy(teacher.denoiser)
        self.fake_score.module.float().requires_grad_(True)

    def critic(self, batch: TrainBatch) -> Tensor:
        """The fake score's own training: E|eps - eps_fake(x_t, t)|^2 on the student's pictures."""
        x_0_BCHW, rng = batch.fake_BCHW.detach(), batch.generator
        t_B, x_t_BCHW = self._noised(x_0_BCHW, 0, len(self.teacher.schedule), rng)
        guess_BCHW = self._x_0(self.fake_score, x_t_BCHW, t_B, batch.cond)
        # (eps - eps_hat) = -sqrt(a / (1 - a)) (x_0 - x_0_hat): the same loss for any prediction.
        a_B111 = self.teacher.schedule.alpha_bar(t_B)
        return (a_B111 / (1 - a_B111) * (x_0_BCHW - guess_BCHW).square()).mean()

    def student(self, batch: TrainBatch) -> Tensor:
        """0.5 |x - stop(x - g)|^2, g = (x_0 fake - x_0 real) / mean|x - x_0 real| (DMD, eq. 7, 8).

        Its gradient with respect to x is g, divided by the number of values.
        """
        x_0_BCHW = batch.fake_BCHW
        with torch.no_grad():
            t_B, x_t_BCHW = self._noised(x_0_BCHW, self.low, self.high + 1, batch.generator)
            fake_BCHW = self._x_0(self.fake_score, x_t_BCHW, t_B, batch.cond)
            real_BCHW = self._guided(x_t_BCHW, t_B, batch)
            scale_B111 = (x_0_BCHW - real_BCHW).abs().mean((1, 2, 3), keepdim=True)
            target_BCHW = x_0_BCHW - (fake_BCHW - real_BCHW) / scale_B111.clamp(min=1e-6)
        return 0.5 * (x_0_BCHW - target_BCHW).square().mean()

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Nothing is constrained."""

    def modules(self) -> Sequence[nn.Module]:
        """The fake score."""
        return [self.fake_score.module]

    def _noised(
        self, x_0_BCHW: Tensor, low: int, high: int, rng: Generator
    ) -> tuple[Tensor, Tensor]:
        """Timesteps in [low, high), and x_t."""
        device = x_0_BCHW.device
        t_B = torch.randint(low, high, (len(x_0_BCHW),), generator=rng).to(device)
        eps_BCHW = torch.randn(x_0_BCHW.shape, generator=rng).to(device)
        return t_B, self.teacher.schedule.add(x_0_BCHW, eps_BCHW, t_B)

    def _x_0(self, score: Denoiser, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        output_BCHW = score(x_t_BCHW, t_B, cond).float()
        return self.teacher.schedule.to_x_0(output_BCHW, x_t_BCHW, t_B, score.prediction)

    def _guided(self, x_t_BCHW: Tensor, t_B: Tensor, batch: TrainBatch) -> Tensor:
        """The teacher's guess of x_0, guided where asked."""
        told = self._x_0(self.teacher.denoiser, x_t_BCHW, t_B, batch.cond)
        if self.guidance <= 1:
            return told
        null = self._x_0(self.teacher.denoiser, x_t_BCHW, t_B, batch.null)
        return null + self.guidance * (told - null)

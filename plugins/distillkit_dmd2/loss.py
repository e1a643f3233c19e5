"""Distribution matching (DMD, Yin et al. 2024) with a fake score trained on the student's samples.

The gradient of KL(student || teacher) is the difference of two scores: the teacher's (real), and
one that is trained on the student's samples (fake). Both are compared as estimates of x_0.
Legend: B batch, C channels, H, W latent cells.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distillkit.configs import LossConfig
from distillkit.errors import UserError
from distillkit.remarks import Remark

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillkit.contracts import Denoiser, StudentNetwork, Teacher, TrainBatch
    from distillkit.values import Condition


class DistributionMatching:
    """`distillkit.contracts.Loss`. The fake score starts as the teacher's."""

    def __init__(
        self,
        teacher: Teacher,
        *,
        low: int,
        high: int,
        guidance: float,
        rank: int | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        """`low`, `high`: smallest and largest timestep at which the scores are compared.

        `rank`: of small matrices beside the teacher's own frozen weights, which then are the fake
        score; None trains a copy of the whole network. Raises `UserError` for a teacher that has no
        such matrices, and for `gradient_checkpointing` with one whose network has none.
        """
        self.teacher, self.schedule, self.guidance = teacher, teacher.schedule, guidance
        self.low, self.high = low, high
        self.fake_score: Denoiser
        if rank is None:
            self.fake_score = copy.deepcopy(teacher.denoiser)
            self.fake_score.module.float().requires_grad_(True)
        elif not hasattr(teacher, "adapted"):
            raise UserError(
                f"distribution-matching: a {type(teacher).__name__} has no LoRA for a fake score; "
                "leave `rank` out"
            )
        else:
            self.fake_score = teacher.adapted(rank)
        if gradient_checkpointing:
            module = self.fake_score.module
            if not hasattr(module, "enable_gradient_checkpointing"):
                raise UserError(
                    f"distribution-matching: a {type(module).__name__} has no gradient "
                    "checkpointing; leave `gradient_checkpointing` out"
                )
            module.enable_gradient_checkpointing()

    def critic(self, batch: TrainBatch) -> Tensor:
        """E|target - F(x_t, t)|^2 on the student's samples, F the fake score's network: trains it
        as its family trains a teacher (DMD, equation 6).

        The target is the noise for a network that predicts noise, the velocity for one of flow
        matching: each noise level has the weight that the teacher's own training gave it.
        """
        x_0_BCHW, score = batch.fake_BCHW.detach(), self.fake_score
        t_B, eps_BCHW = self._draw("fake score", batch, 0, len(self.schedule))
        x_t_BCHW = self.schedule.add(x_0_BCHW, eps_BCHW, t_B)
        output_BCHW = score(x_t_BCHW, t_B, batch.cond).float()
        target_BCHW = self.schedule.target(x_0_BCHW, eps_BCHW, t_B, score.prediction)
        return (target_BCHW - output_BCHW).square().mean()

    def student(self, batch: TrainBatch) -> Tensor:
        """0.5 |x - stop(x - g)|^2, g = (x_0_fake - x_0_real) / mean|x - x_0_real| (DMD, eq. 7, 8).

        Its gradient with respect to x is g, divided by the number of values.
        """
        import torch

        x_0_BCHW = batch.fake_BCHW
        with torch.no_grad():
            # Both scores at the same noisy sample.
            t_B, eps_BCHW = self._draw("score", batch, self.low, self.high + 1)
            x_t_BCHW = self.schedule.add(x_0_BCHW, eps_BCHW, t_B)
            fake_BCHW = self._predict_x_0(self.fake_score, x_t_BCHW, t_B, batch.cond)
            real_BCHW = self._guided_x_0(x_t_BCHW, t_B, batch)
            # Normalised by the teacher's error, so that noise levels weigh alike (equation 8).
            scale_B111 = (x_0_BCHW - real_BCHW).abs().mean((1, 2, 3), keepdim=True)
            target_BCHW = x_0_BCHW - (fake_BCHW - real_BCHW) / scale_B111.clamp(min=1e-6)
        return 0.5 * (x_0_BCHW - target_BCHW).square().mean()

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """No constraint."""

    def modules(self) -> Sequence[nn.Module]:
        """The fake score."""
        return [self.fake_score.module]

    @staticmethod
    def _draw(purpose: str, batch: TrainBatch, low: int, high: int) -> tuple[Tensor, Tensor]:
        """Timesteps in [low, high), and noise; those of fake score and student have nothing in
        common."""
        return batch.timesteps(purpose, low, high), batch.noise(purpose)

    def _predict_x_0(
        self, denoiser: Denoiser, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition
    ) -> Tensor:
        output_BCHW = denoiser(x_t_BCHW, t_B, cond).float()
        return self.schedule.to_x_0(output_BCHW, x_t_BCHW, t_B, denoiser.prediction)

    def _guided_x_0(self, x_t_BCHW: Tensor, t_B: Tensor, batch: TrainBatch) -> Tensor:
        """The teacher's estimate of x_0, with classifier-free guidance above 1."""
        cond_BCHW = self._predict_x_0(self.teacher.denoiser, x_t_BCHW, t_B, batch.cond)
        if self.guidance <= 1:
            return cond_BCHW
        if batch.null is None:
            raise UserError("distribution-matching: guidance needs an unconditional condition")
        null_BCHW = self._predict_x_0(self.teacher.denoiser, x_t_BCHW, t_B, batch.null)
        return null_BCHW + self.guidance * (cond_BCHW - null_BCHW)


class DistributionMatchingConfig(LossConfig):
    """Moves the distribution of the student's samples towards the teacher's, score by score."""

    type: Literal["distribution-matching"] = "distribution-matching"
    low: int = Field(20, ge=0, le=999)
    """Smallest timestep at which the scores are compared (DMD, section 3.2)."""
    high: int = Field(980, ge=0, le=999)
    """Largest timestep at which the scores are compared."""
    guidance: float = Field(1.0, ge=0)
    """Classifier-free guidance of the teacher's score, null + guidance (cond - null); up to 1 the
    null condition is never run."""

    rank: int | None = Field(None, ge=1)
    """The fake score is a LoRA of this rank beside the teacher's own frozen weights, where the
    family has one: no second copy of the network is in memory. None trains a whole copy."""
    gradient_checkpointing: bool = False
    """Recompute the fake score's activations in its backward pass: less memory, one forward pass
    more in each of its updates, the same gradients."""

    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}

    def needs_null(self) -> bool:
        return self.guidance > 1

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        if self.rank is None and getattr(recipe.teacher, "bits", None) is not None:
            said = "a copy of a teacher with `bits` can't train: set a rank, or leave `bits` out"
            yield Remark(said, "rank")
        # Families that count guidance otherwise say it as others do by `guidance_scale`.
        plain = getattr(recipe.teacher, "guidance", 0)
        guided = getattr(recipe.teacher, "guidance_scale", plain)
        if guided > 1 >= self.guidance:
            said = (
                f"the teacher samples with guidance {guided:g} and its score has none: students "
                "move towards other pictures than the samples and the metrics show"
            )
            yield Remark(said, "guidance", is_error=False)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> DistributionMatchingConfig:
        if self.low >= self.high:
            raise ValueError(f"`low` ({self.low}) should be below `high` ({self.high})")
        return self

    def build(self, teacher: Teacher, student: StudentNetwork) -> DistributionMatching:
        return DistributionMatching(
            teacher,
            low=self.low,
            high=self.high,
            guidance=self.guidance,
            rank=self.rank,
            gradient_checkpointing=self.gradient_checkpointing,
        )

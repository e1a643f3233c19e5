"""The UNet as a student, trained whole or through a LoRA.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.common.trainable import merged_network
from distillkit_diffusers.denoiser import UNetDenoiser
from distillkit_diffusers.io.publish import publish_pipeline
from distillkit_diffusers.solvers import shifted_scheduler, stock_scheduler

if TYPE_CHECKING:
    from distillkit.values import Condition
    from distillkit_diffusers.choices import DType
    from distillkit_diffusers.teacher import SDXLTeacher


class UNetStudent:
    """Fulfils `distillkit.contracts.StudentNetwork`: the parameters of `module` train."""

    def __init__(self, teacher: SDXLTeacher, module: Any, publish_dtype: DType = "float32") -> None:
        """`module`: a UNet2DConditionModel, or a `LoRATwin` around one."""
        self.module = module
        self.prediction = teacher.denoiser.prediction
        self.teacher = teacher
        self._publish_dtype = getattr(torch, publish_dtype)

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The UNet's output (B, C, H, W), for whole pictures."""
        vae_factor = self.teacher.vae_factor
        return UNetDenoiser(self.module, self.prediction, vae_factor)(x_t_BCHW, t_B, cond)

    def unet(self, dtype: Any) -> Any:
        """A copy of the UNet on the CPU in `dtype`, with any LoRA merged and wrappers removed."""
        return merged_network(self.module, type(self.teacher.pipe.unet), dtype)

    def publish(
        self, folder: Path, timestep_shift: int, remote_code: bool = False, dtype: Any = None
    ) -> None:
        """Write a StableDiffusionXLPipeline folder of the teacher's parts and this UNet.

        `remote_code`: make the shifted scheduler the pipeline's own. `dtype`: the UNet's number
        format, in place of the recipe's.
        """
        pipe = self.teacher.pipe
        publish_pipeline(
            pipe,
            self.unet(dtype or self._publish_dtype),
            folder,
            stock=stock_scheduler(pipe.scheduler.config),
            shifted=shifted_scheduler(pipe.scheduler.config, timestep_shift),
            remote_code=remote_code,
        )

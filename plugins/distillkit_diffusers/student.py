"""The whole UNet as a student. Legend: B batch, C latent channels, H, W latent cells."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.denoiser import UNetDenoiser
from distillkit_diffusers.publish import publish_pipeline

if TYPE_CHECKING:
    from distillkit.contracts import Condition
    from distillkit_diffusers.configs import DType
    from distillkit_diffusers.teacher import SDXLTeacher


class UNetStudent:
    """Fulfils `distillkit.contracts.StudentNetwork`: every weight trains, in float32."""

    def __init__(
        self,
        teacher: SDXLTeacher,
        start: Any = None,
        gradient_checkpointing: bool = False,
        publish_dtype: DType = "float32",
    ) -> None:
        """`start`: the UNet whose weights it takes over and owns; none copies the teacher's."""
        unet = copy.deepcopy(teacher.denoiser.module) if start is None else start
        self.module = unet.float().train().requires_grad_(True)
        if gradient_checkpointing:
            self.module.enable_gradient_checkpointing()
        self.prediction = teacher.denoiser.prediction
        self.teacher = teacher
        self._dtype = getattr(torch, publish_dtype)

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The UNet's output (B, C, H, W), for whole pictures."""
        vae_factor = self.teacher.vae_factor
        return UNetDenoiser(self.module, self.prediction, vae_factor)(x_t_BCHW, t_B, cond)

    def unet(self, dtype: Any) -> Any:
        """A copy of the UNet on the CPU in `dtype`, out of the wrappers that training needs."""
        from accelerate.utils import extract_model_from_parallel

        own = extract_model_from_parallel(self.module)
        with torch.device("meta"):
            twin = type(own).from_config(own.config)
        weights = {name: w.detach().to("cpu", dtype) for name, w in own.state_dict().items()}
        twin.load_state_dict(weights, assign=True)
        return twin.eval().requires_grad_(False)

    def publish(self, folder: Path, timestep_shift: int) -> None:
        """Write a StableDiffusionXLPipeline folder of the teacher's parts and this UNet."""
        publish_pipeline(self.teacher.pipe, self.unet(self._dtype), folder, timestep_shift)

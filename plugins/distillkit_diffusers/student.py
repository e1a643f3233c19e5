"""The UNet as a student, whole or through a LoRA.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.denoiser import UNetDenoiser
from distillkit_diffusers.lora_unet import LoRAUNet
from distillkit_diffusers.publish import publish_pipeline

if TYPE_CHECKING:
    from distillkit.values import Condition
    from distillkit_diffusers.teacher import SDXLTeacher
    from distillkit_diffusers.words import DType


class UNetStudent:
    """Fulfils `distillkit.contracts.StudentNetwork`: what `module` lets train, trains."""

    def __init__(self, teacher: SDXLTeacher, module: Any, publish_dtype: DType = "float32") -> None:
        """`module`: a UNet2DConditionModel, or a `LoRAUNet` around one."""
        self.module = module
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
        weights = own.merged() if isinstance(own, LoRAUNet) else own.state_dict()
        with torch.device("meta"):
            twin = type(self.teacher.pipe.unet).from_config(own.config)
        twin.load_state_dict(
            {n: w.detach().to("cpu", dtype) for n, w in weights.items()}, assign=True
        )
        return twin.eval().requires_grad_(False)

    def publish(self, folder: Path, timestep_shift: int, remote_code: bool = False) -> None:
        """Write a StableDiffusionXLPipeline folder of the teacher's parts and this UNet."""
        unet = self.unet(self._dtype)
        publish_pipeline(self.teacher.pipe, unet, folder, timestep_shift, remote_code)


def convert(module: Any, dtype: Any) -> Any:
    """The module in another number format, without the advice of diffusers' own `to`."""
    return torch.nn.Module.to(module, dtype)


def trainable_copy(unet: Any, copied: bool, gradient_checkpointing: bool) -> Any:
    """The UNet with every weight in training, in float32; `copied`: leave `unet` as it is."""
    unet = copy.deepcopy(unet) if copied else unet
    unet = unet.float().train().requires_grad_(True)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet

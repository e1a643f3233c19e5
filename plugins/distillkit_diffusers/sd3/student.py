"""The MMDiT as a student, trained whole or through a LoRA.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.lora_twin import LoRATwin
from distillkit_diffusers.sd3.denoiser import MMDiTDenoiser
from distillkit_diffusers.sd3.publish import publish_pipeline
from distillkit_diffusers.sd3.teacher import euler_scheduler

if TYPE_CHECKING:
    from distillkit.configs import Sampler
    from distillkit.noising import Prediction
    from distillkit.values import Condition
    from distillkit_diffusers.choices import DType
    from distillkit_diffusers.sd3.teacher import SD3Teacher


class SD3Student:
    """Fulfils `distillkit.contracts.StudentNetwork`: the parameters of `module` train."""

    prediction: Prediction = "flow"

    def __init__(
        self,
        teacher: SD3Teacher,
        module: Any,
        levels: Sequence[float],
        sampler: Sampler,
        publish_dtype: DType = "float32",
    ) -> None:
        """`module`: a SD3Transformer2DModel, or a `LoRATwin` of one. `levels` and `sampler` of its
        roll-outs go into what it publishes."""
        self.module = module
        self.teacher = teacher
        self.levels, self.sampler = levels, sampler
        self._publish_dtype = getattr(torch, publish_dtype)

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The flow (B, C, H, W)."""
        return MMDiTDenoiser(self.module, self.teacher.schedule)(x_t_BCHW, t_B, cond)

    def transformer(self, dtype: Any) -> Any:
        """A copy of the transformer on the CPU in `dtype`, any LoRA merged, wrappers removed."""
        from accelerate.utils import extract_model_from_parallel

        own = extract_model_from_parallel(self.module)
        weights = own.merged() if isinstance(own, LoRATwin) else own.state_dict()
        with torch.device("meta"):
            twin = type(self.teacher.pipe.transformer).from_config(own.config)
        twin.load_state_dict(
            {n: w.detach().to("cpu", dtype) for n, w in weights.items()}, assign=True
        )
        return twin.eval().requires_grad_(False)

    def publish(self, folder: Path, timestep_shift: int, dtype: Any = None) -> None:
        """Write a StableDiffusion3Pipeline folder of the teacher's parts and this transformer.

        `timestep_shift`: 1000, since the network is run at its own noise level. `dtype`: the
        transformer's number format, in place of the recipe's.
        """
        pipe, stochastic = self.teacher.pipe, self.sampler == "renoise"
        publish_pipeline(
            pipe,
            self.transformer(dtype or self._publish_dtype),
            folder,
            scheduler=euler_scheduler(pipe.scheduler.config, self.teacher.shift, stochastic),
            levels=self.levels,
        )

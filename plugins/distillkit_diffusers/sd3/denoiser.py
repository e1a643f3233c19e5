"""An MMDiT as a denoiser that predicts the flow.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.flow.teacher import TIMES, network_sigma

if TYPE_CHECKING:
    from distillkit.noising import NoiseSchedule, Prediction
    from distillkit.values import Condition


@dataclass
class MMDiTDenoiser:
    """Fulfils `distillkit.contracts.Denoiser`: v = eps - x_0."""

    module: Any
    """SD3Transformer2DModel, or a wrapper around one."""
    schedule: NoiseSchedule
    prediction: Prediction = "flow"

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The network's output (B, C, H, W), in the number format of `x_t_BCHW`."""
        dtype = next(self.module.parameters()).dtype
        embeds = cond.to(x_t_BCHW.device, dtype).tensors
        with own_format(dtype, x_t_BCHW.device):
            output = self.module(
                x_t_BCHW.to(dtype),
                timestep=TIMES * network_sigma(self.schedule, t_B.to(x_t_BCHW.device)),
                encoder_hidden_states=embeds["prompt"],
                pooled_projections=embeds["pooled"],
                return_dict=False,
            )
        return output[0].to(x_t_BCHW.dtype)

"""An SDXL-class UNet as a denoiser, and SDXL's size and crop ids.

Legend: B batch, C latent channels, H, W latent cells; ids are in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.common.precision import own_format

if TYPE_CHECKING:
    from distillkit.noising import Prediction
    from distillkit.values import Condition, Window


@dataclass
class UNetDenoiser:
    """A UNet run on whole pictures; fulfils `distillkit.contracts.Denoiser`."""

    module: Any
    """UNet2DConditionModel, or a wrapper around one."""
    prediction: Prediction
    vae_factor: int
    """Pixels a latent cell."""

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The UNet's output (B, C, H, W), in the number format of `x_t_BCHW`."""
        dtype = next(self.module.parameters()).dtype
        height, width = (side * self.vae_factor for side in x_t_BCHW.shape[-2:])
        ids_6 = whole_ids(height, width, x_t_BCHW.device)
        embeds = cond.to(x_t_BCHW.device, dtype).tensors
        with own_format(dtype, x_t_BCHW.device):
            output = self.module(
                x_t_BCHW.to(dtype),
                timestep=t_B,
                encoder_hidden_states=embeds["prompt"],
                added_cond_kwargs={
                    "text_embeds": embeds["pooled"],
                    "time_ids": ids_6.expand(len(x_t_BCHW), 6),
                },
                return_dict=False,
            )
        return output[0].to(x_t_BCHW.dtype)


@lru_cache
def whole_ids(height: int, width: int, device: Any) -> Tensor:
    """The ids of a whole picture, (6,): made once, since a tensor made on a GPU is waited for."""
    return torch.tensor([height, width, 0, 0, height, width], device=device)


def window_ids(window: Window, vae_factor: int, crop_ids: bool) -> Tensor:
    """SDXL's ids of a view: original size, crop's top and left, target size; (B, 6) in pixels.

    Without `crop_ids` every view gets the ids of the whole picture.
    """
    top_B, left_B = window.top_B, window.left_B
    height, width = window.full_height, window.full_width
    target_height, target_width = (window.height, window.width) if crop_ids else (height, width)
    if not crop_ids:
        top_B, left_B = torch.zeros_like(top_B), torch.zeros_like(left_B)

    def column(value: int) -> Tensor:
        return torch.full_like(top_B, value)

    columns = [
        column(height),
        column(width),
        top_B,
        left_B,
        column(target_height),
        column(target_width),
    ]
    return torch.stack(columns, dim=1) * vae_factor

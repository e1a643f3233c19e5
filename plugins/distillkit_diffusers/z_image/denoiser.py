"""Z-Image's transformer as a denoiser that predicts the flow.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.flow.teacher import network_sigma

if TYPE_CHECKING:
    from distillkit.noising import NoiseSchedule, Prediction
    from distillkit.values import Condition


@dataclass
class ZImageDenoiser:
    """Fulfils `distillkit.contracts.Denoiser`: v = eps - x_0, the network's output negated."""

    module: Any
    """ZImageTransformer2DModel, or a wrapper around one."""
    schedule: NoiseSchedule
    prediction: Prediction = "flow"

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The flow (B, C, H, W), in the number format of `x_t_BCHW`."""
        device, dtype = x_t_BCHW.device, next(self.module.parameters()).dtype
        with own_format(dtype, device):
            output = self.module(
                as_list(x_t_BCHW.to(dtype)),
                t=network_time(network_sigma(self.schedule, t_B.to(device))),
                cap_feats=texts(cond.to(device, dtype).tensors),
                return_dict=False,
            )
        return -torch.stack(output[0]).squeeze(2).to(x_t_BCHW.dtype)


def as_list(x_t_BCHW: Tensor) -> list[Tensor]:
    """The network takes one (C, 1, H, W) a picture: a film of one frame."""
    return list(x_t_BCHW.unsqueeze(2).unbind())


def network_time(sigma_B: Tensor) -> Tensor:
    """What the network is told: its time runs from noise, 0, to picture, 1."""
    return 1 - sigma_B


def texts(embeds: Mapping[str, Tensor]) -> list[Tensor]:
    """Each prompt's own tokens (L, D), without padding: the network pads by itself."""
    prompt_BLD, mask_BL = embeds["prompt"], embeds["prompt_mask"]
    if mask_BL.is_meta:  # a plan: every text is as long as it may be
        return list(prompt_BLD.unbind())
    return [text_LD[mask_L] for text_LD, mask_L in zip(prompt_BLD, mask_BL, strict=True)]

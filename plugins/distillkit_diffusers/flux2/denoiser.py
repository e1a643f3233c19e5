"""FLUX.2's transformer as a denoiser that predicts the flow.

Legend: B batch, C latent channels, H, W latent cells, N = HW tokens, L words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.values import sent
from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.flow.teacher import network_sigma

if TYPE_CHECKING:
    from distillkit.noising import NoiseSchedule, Prediction
    from distillkit.values import Condition


@dataclass
class Flux2Denoiser:
    """Fulfils `distillkit.contracts.Denoiser`: v = eps - x_0."""

    module: Any
    """Flux2Transformer2DModel, or a wrapper around one."""
    schedule: NoiseSchedule
    prediction: Prediction = "flow"

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The network's output (B, C, H, W), in the number format of `x_t_BCHW`."""
        device, dtype = x_t_BCHW.device, next(self.module.parameters()).dtype
        prompt_BLD = cond.to(device, dtype).tensors["prompt"]
        corner_1 = torch.zeros(1, dtype=torch.long)
        rows, columns = x_t_BCHW.shape[2:]
        with own_format(dtype, device):
            output = self.module(
                to_tokens(x_t_BCHW.to(dtype)),
                timestep=network_sigma(self.schedule, t_B.to(device)),
                encoder_hidden_states=prompt_BLD,
                img_ids=picture_ids(corner_1, corner_1, rows, columns, device)[0],
                txt_ids=text_ids(prompt_BLD.shape[1], device),
                return_dict=False,
            )
        v_BCN = output[0].transpose(1, 2)
        return v_BCN.unflatten(2, (rows, columns)).to(x_t_BCHW.dtype)


def to_tokens(x_BCHW: Tensor) -> Tensor:
    """A token a cell, row by row: (B, N, C)."""
    return x_BCHW.flatten(2).transpose(1, 2)


def picture_ids(
    top_B: Tensor, left_B: Tensor, rows: int, columns: int, device: torch.device
) -> Tensor:
    """Position ids (t, row, column, word) of pictures' tokens, (B, N, 4)."""
    rows_Bh = sent(top_B[:, None] + torch.arange(rows), device)
    columns_Bw = sent(left_B[:, None] + torch.arange(columns), device)
    size = (len(top_B), rows, columns)
    places = rows_Bh[:, :, None].expand(size), columns_Bw[:, None, :].expand(size)
    none = torch.zeros_like(places[0])
    return torch.stack([none, *places, none], dim=3).flatten(1, 2)


def text_ids(words: int, device: torch.device) -> Tensor:
    """Position ids of the text's tokens, (L, 4)."""
    ids_L4 = torch.zeros(words, 4, dtype=torch.long, device=device)
    ids_L4[:, 3] = torch.arange(words, device=device)
    return ids_L4

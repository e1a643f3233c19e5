"""The critics' backbone E: encoder and mid block of a frozen UNet (paper, section 3.2).

Legend: B batch, C latent channels, H, W latent cells, D context units, P pooled units, T units of
the time embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distillkit.errors import UserError
from distillkit_diffusers.denoiser import window_ids

if TYPE_CHECKING:
    from distillkit.contracts import Condition, Window


class Encoder(nn.Module):
    """conv_in, down blocks and mid block of a UNet2DConditionModel, whose tensors it shares."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.time_proj = unet.time_proj
        self.time_embedding = unet.time_embedding
        self.add_time_proj = unet.add_time_proj
        self.add_embedding = unet.add_embedding
        self.conv_in = unet.conv_in
        self.down_blocks = unet.down_blocks
        self.mid_block = unet.mid_block

    def forward(
        self, x_t_BCHW: Tensor, t_B: Tensor, prompt_BLD: Tensor, pooled_BP: Tensor, ids_B6: Tensor
    ) -> list[Tensor]:
        """conv_in's output, each residual of the down path, and the mid block's output."""
        dtype = x_t_BCHW.dtype
        emb_BT = self.time_embedding(self.time_proj(t_B).to(dtype))
        ids_BX = self.add_time_proj(ids_B6.flatten()).to(dtype).view(len(ids_B6), -1)
        emb_BT = emb_BT + self.add_embedding(torch.cat([pooled_BP, ids_BX], dim=1))
        sample = self.conv_in(x_t_BCHW)
        maps = [sample]
        for block in self.down_blocks:
            told = _context(block, prompt_BLD)
            sample, residuals = block(hidden_states=sample, temb=emb_BT, **told)
            maps.extend(residuals)
        maps.append(self.mid_block(sample, emb_BT, **_context(self.mid_block, prompt_BLD)))
        return maps


class UNetEncoder:
    """Fulfils `distillkit.contracts.Backbone`: ten maps for SDXL, its UNet's up path never runs."""

    def __init__(
        self,
        unet: Any,
        vae_factor: int,
        say_where: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        """`say_where`: the size and crop ids tell where a local view lies in the picture."""
        if unet.config.addition_embed_type != "text_time" or unet.mid_block is None:
            raise UserError("backbone unet-encoder: the UNet is not of the SDXL family")
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()  # a teacher that shares it runs without gradients
        self.encoder = Encoder(unet).eval().requires_grad_(False)
        self.channels = level_channels(unet.config)
        self.vae_factor = vae_factor
        self.say_where = say_where

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        """One map (B, channels[l], h, w) a level; sides fall from H, W to a quarter for SDXL.

        Computed in the backbone's number format, given back in that of `x_t_BCHW`.
        """
        dtype = self.encoder.conv_in.weight.dtype
        told = cond.to(x_t_BCHW.device, dtype).tensors
        ids_B6 = window_ids(window, self.vae_factor, self.say_where).to(x_t_BCHW.device)
        maps = self.encoder(x_t_BCHW.to(dtype), t_B, told["prompt"], told["pooled"], ids_B6)
        return [map_BChw.to(x_t_BCHW.dtype) for map_BChw in maps]

    def modules(self) -> Sequence[nn.Module]:
        """The encoder alone."""
        return [self.encoder]


def level_channels(config: Any) -> tuple[int, ...]:
    """Channels of each map: SDXL has 320 x4, 640 x3, 1280 x3."""
    widths = config.block_out_channels
    layers = config.layers_per_block
    per_block = [layers] * len(widths) if isinstance(layers, int) else layers
    channels = [widths[0]]
    for i, (width, count) in enumerate(zip(widths, per_block, strict=True)):
        downsamplers = 1 if i < len(widths) - 1 else 0
        channels += [width] * (count + downsamplers)
    return (*channels, widths[-1])


def _context(block: Any, prompt_BLD: Tensor) -> dict[str, Tensor]:
    crosses = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": prompt_BLD} if crosses else {}

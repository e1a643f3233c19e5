"""The critics' backbone E: encoder and mid block of a frozen UNet (paper, section 3.2).

Legend: B batch, C latent channels, H, W latent cells, D context units, P pooled units, T units of
the time embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distillkit.errors import UserError
from distillkit.values import sent
from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.denoiser import window_ids
from distillkit_diffusers.io.model_configs import level_channels

if TYPE_CHECKING:
    from distillkit.values import Condition, Window


class Encoder(nn.Module):
    """conv_in, down blocks and mid block of a UNet2DConditionModel, whose tensors it shares.

    Blocks after the first `levels` maps are left out.
    """

    def __init__(self, unet: Any, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.time_proj = unet.time_proj
        self.time_embedding = unet.time_embedding
        self.add_time_proj = unet.add_time_proj
        self.add_embedding = unet.add_embedding
        self.conv_in = unet.conv_in
        ends = list(accumulate(map(_maps, unet.down_blocks), initial=1))
        self.down_blocks = nn.ModuleList(
            block for block, before in zip(unet.down_blocks, ends, strict=False) if before < levels
        )
        self.mid_block = unet.mid_block if ends[-1] < levels else None

    def forward(
        self, x_t_BCHW: Tensor, t_B: Tensor, prompt_BLD: Tensor, pooled_BP: Tensor, ids_B6: Tensor
    ) -> list[Tensor]:
        """The first `levels` of: conv_in's output, the down path's residuals, mid's output."""
        dtype = x_t_BCHW.dtype
        emb_BT = self.time_embedding(self.time_proj(t_B).to(dtype))
        ids_BX = self.add_time_proj(ids_B6.flatten()).to(dtype).view(len(ids_B6), -1)
        emb_BT = emb_BT + self.add_embedding(torch.cat([pooled_BP, ids_BX], dim=1))
        sample = self.conv_in(x_t_BCHW)
        maps = [sample]
        for block in self.down_blocks:
            context = _context(block, prompt_BLD)
            sample, residuals = block(hidden_states=sample, temb=emb_BT, **context)
            maps.extend(residuals)
        if self.mid_block is not None:
            maps.append(self.mid_block(sample, emb_BT, **_context(self.mid_block, prompt_BLD)))
        return maps[: self.levels]


class UNetEncoder:
    """Fulfils `distillkit.contracts.Backbone`: ten maps for SDXL; the UNet's up path never runs."""

    def __init__(
        self,
        unet: Any,
        vae_factor: int,
        crop_ids: bool = True,
        gradient_checkpointing: bool = False,
        levels: int | None = None,
    ) -> None:
        """`crop_ids`: SDXL's size and crop ids state where a local view lies in the picture.

        `levels`: number of maps, from the input on; None takes all. Raises `UserError` for more.
        """
        if unet.config.addition_embed_type != "text_time" or unet.mid_block is None:
            raise UserError("backbone unet-encoder: the UNet is not of the SDXL family")
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()  # a teacher that shares it runs without gradients
        channels = level_channels(unet.config)
        if levels is not None and levels > len(channels):
            raise UserError(f"backbone.levels: {levels}, but the UNet has {len(channels)}")
        self.channels = channels[:levels]
        self.encoder = Encoder(unet, len(self.channels)).eval().requires_grad_(False)
        self.vae_factor = vae_factor
        self.crop_ids = crop_ids
        ids = 6 * unet.config.addition_time_embed_dim  # of size, crop and target size
        self.pooled_channels: int = unet.config.projection_class_embeddings_input_dim - ids

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        """One map (B, channels[l], h, w) a level; for SDXL, sides shrink from H, W to a quarter.

        Computed and returned in the backbone's number format.
        """
        dtype = self.encoder.conv_in.weight.dtype
        embeds = cond.to(x_t_BCHW.device, dtype).tensors
        ids_B6 = sent(window_ids(window, self.vae_factor, self.crop_ids), x_t_BCHW.device)
        with own_format(dtype, x_t_BCHW.device):
            maps: Sequence[Tensor] = self.encoder(
                x_t_BCHW.to(dtype), t_B, embeds["prompt"], embeds["pooled"], ids_B6
            )
        return maps

    def pooled(self, cond: Condition) -> Tensor:
        """The second text encoder's pooled embedding (B, P)."""
        return cond.tensors["pooled"]

    def modules(self) -> Sequence[nn.Module]:
        """The encoder alone."""
        return [self.encoder]


def _maps(block: Any) -> int:
    """Number of maps that a down block adds: one a layer, and its downsampler's."""
    return len(block.resnets) + (block.downsamplers is not None)


def _context(block: Any, prompt_BLD: Tensor) -> dict[str, Tensor]:
    crosses = getattr(block, "has_cross_attention", False)
    return {"encoder_hidden_states": prompt_BLD} if crosses else {}

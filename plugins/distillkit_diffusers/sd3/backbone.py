"""The critics' backbone on a frozen MMDiT: the picture's tokens after some blocks, as maps.

Legend: B batch, C latent channels, H, W latent cells, h, w patches, N = hw tokens, D units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distillkit.errors import UserError
from distillkit_diffusers.sd3.denoiser import network_time

if TYPE_CHECKING:
    from distillkit.noising import NoiseSchedule
    from distillkit.values import Condition, Window


def spread(blocks: int, taps: int = 5) -> tuple[int, ...]:
    """Blocks that are tapped by default: `taps` of them, in the middle of equal shares."""
    return tuple(sorted({(2 * i + 1) * blocks // (2 * taps) for i in range(taps)}))


class TappedMMDiT(nn.Module):
    """The blocks of a SD3Transformer2DModel up to the last tapped one, whose tensors it shares."""

    def __init__(self, transformer: Any, taps: Sequence[int], gradient_checkpointing: bool) -> None:
        super().__init__()
        self.taps, self.checkpoints = tuple(taps), gradient_checkpointing
        self.pos_embed = transformer.pos_embed
        self.time_text_embed = transformer.time_text_embed
        self.context_embedder = transformer.context_embedder
        self.transformer_blocks = nn.ModuleList(transformer.transformer_blocks[: max(taps) + 1])

    def forward(
        self,
        x_t_BCHW: Tensor,
        time_B: Tensor,
        prompt_BLD: Tensor,
        pooled_BP: Tensor,
        position_BND: Tensor,
    ) -> list[Tensor]:
        """A map (B, D, h, w) of each tap."""
        patches_BDhw = self.pos_embed.proj(x_t_BCHW)
        size = patches_BDhw.shape[2:]
        tokens_BND = patches_BDhw.flatten(2).transpose(1, 2) + position_BND.to(patches_BDhw.dtype)
        temb_BD = self.time_text_embed(time_B, pooled_BP)
        text_BLD = self.context_embedder(prompt_BLD)
        maps = []
        for number, block in enumerate(self.transformer_blocks):
            if self.checkpoints and torch.is_grad_enabled():
                text_BLD, tokens_BND = checkpoint(
                    block, tokens_BND, text_BLD, temb_BD, use_reentrant=False
                )
            else:
                text_BLD, tokens_BND = block(
                    hidden_states=tokens_BND, encoder_hidden_states=text_BLD, temb=temb_BD
                )
            if number in self.taps:
                maps.append(tokens_BND.transpose(1, 2).unflatten(2, size))
        return maps


class MMDiTBackbone:
    """Fulfils `distillkit.contracts.Backbone`; blocks after the last tap are left out."""

    def __init__(
        self,
        transformer: Any,
        schedule: NoiseSchedule,
        taps: Sequence[int] | None = None,
        shifted: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        """`taps`: numbers of blocks, ascending; None takes five, spread. `shifted`: a local view's
        patches have the positions that they have in the picture. Raises `UserError`."""
        config = transformer.config
        taps = spread(config.num_layers) if taps is None else tuple(taps)
        if max(taps) >= config.num_layers:
            raise UserError(
                f"backbone.blocks: there is no block {max(taps)}; the network's blocks are 0 to "
                f"{config.num_layers - 1}"
            )
        self.cell = int(config.patch_size)
        width = config.num_attention_heads * config.attention_head_dim
        self.channels = (width,) * len(taps)
        self.schedule, self.shifted = schedule, shifted
        network = TappedMMDiT(transformer, taps, gradient_checkpointing)
        self.network = network.eval().requires_grad_(False)

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        """One map (B, D, h, w) a tap, in the backbone's number format."""
        dtype, device = self.network.context_embedder.weight.dtype, x_t_BCHW.device
        embeds = cond.to(device, dtype).tensors
        maps: Sequence[Tensor] = self.network(
            x_t_BCHW.to(dtype),
            network_time(self.schedule, t_B.to(device)),
            embeds["prompt"],
            embeds["pooled"],
            self._positions(window),
        )
        return maps

    def modules(self) -> Sequence[nn.Module]:
        """The tapped blocks, and what is before them."""
        return [self.network]

    def _positions(self, window: Window) -> Tensor:
        """Embeddings (B, N, D) of the patches' places: the whole picture lies in the middle of the
        network's table, and a view where it was cropped from."""
        embed, cell = self.network.pos_embed, self.cell
        side = embed.pos_embed_max_size
        table_YXD = embed.pos_embed.view(side, side, -1)
        height, width = window.height // cell, window.width // cell
        full = (window.full_height // cell, window.full_width // cell)
        top_B, left_B = window.top_B // cell, window.left_B // cell
        if not self.shifted:
            full = (height, width)
            top_B, left_B = torch.zeros_like(top_B), torch.zeros_like(left_B)
        rows_Bh = (side - full[0]) // 2 + top_B[:, None] + torch.arange(height)
        columns_Bw = (side - full[1]) // 2 + left_B[:, None] + torch.arange(width)
        places_BN = (rows_Bh[:, :, None] * side + columns_Bw[:, None, :]).flatten(1)
        position_BND: Tensor = table_YXD.flatten(0, 1)[places_BN.to(table_YXD.device)]
        return position_BND

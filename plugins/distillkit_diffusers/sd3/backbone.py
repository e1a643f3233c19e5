"""A frozen MMDiT's tapped blocks.

Legend: B batch, C latent channels, H, W latent cells, h, w patches, N = hw tokens, D units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.values import sent
from distillkit_diffusers.flow.dit import Places, TappedBlocks
from distillkit_diffusers.flow.teacher import TIMES


class TappedMMDiT(TappedBlocks):
    """The blocks of a SD3Transformer2DModel up to the last tapped one, whose tensors it shares."""

    _repeated_blocks = ("JointTransformerBlock",)

    def __init__(self, transformer: Any, taps: Sequence[int], gradient_checkpointing: bool) -> None:
        super().__init__(taps, gradient_checkpointing)
        self.pos_embed = transformer.pos_embed
        self.time_text_embed = transformer.time_text_embed
        self.context_embedder = transformer.context_embedder
        self.transformer_blocks = nn.ModuleList(transformer.transformer_blocks[: max(taps) + 1])

    def forward(
        self, x_t_BCHW: Tensor, sigma_B: Tensor, embeds: Mapping[str, Tensor], places: Places
    ) -> list[Tensor]:
        """A map (B, D, h, w) of each tap."""
        patches_BDhw = self.pos_embed.proj(x_t_BCHW)
        size = patches_BDhw.shape[2:]
        position_BND = self._positions(places).to(patches_BDhw.dtype)
        tokens_BND = patches_BDhw.flatten(2).transpose(1, 2) + position_BND
        temb_BD = self.time_text_embed(TIMES * sigma_B, embeds["pooled"])
        text_BLD = self.context_embedder(embeds["prompt"])
        maps = []
        for number, block in enumerate(self.transformer_blocks):
            text_BLD, tokens_BND = self.run(block, tokens_BND, text_BLD, temb_BD)
            if number in self.taps:
                maps.append(tokens_BND.transpose(1, 2).unflatten(2, size))
        return maps

    def _positions(self, places: Places) -> Tensor:
        """Embeddings (B, N, D) of the patches' places: the whole picture lies in the middle of the
        network's table, and a view where it was cropped from."""
        side = self.pos_embed.pos_embed_max_size
        table_YXD = self.pos_embed.pos_embed.view(side, side, -1)
        top_B, left_B = places.top_B, places.left_B
        rows_Bh = (side - places.full_rows) // 2 + top_B[:, None] + torch.arange(places.rows)
        left_B = (side - places.full_columns) // 2 + left_B
        columns_Bw = left_B[:, None] + torch.arange(places.columns)
        places_BN = (rows_Bh[:, :, None] * side + columns_Bw[:, None, :]).flatten(1)
        position_BND: Tensor = table_YXD.flatten(0, 1)[sent(places_BN, table_YXD.device)]
        return position_BND

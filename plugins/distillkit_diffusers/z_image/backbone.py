"""A frozen Z-Image transformer's tapped layers.

Legend: B batch, C latent channels, H, W latent cells, h, w patches, N = hw tokens, D units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit_diffusers.flow.dit import Places, TappedBlocks
from distillkit_diffusers.z_image.denoiser import as_list, network_time, texts
from distillkit_diffusers.z_image.family import PATCH


class TappedZImage(TappedBlocks):
    """The layers of a ZImageTransformer2DModel up to the last tapped one, whose tensors it shares.

    What comes before the layers, and the sequence of picture and text, is made by the transformer's
    own methods.
    """

    _repeated_blocks = ("ZImageTransformerBlock",)

    def __init__(self, transformer: Any, taps: Sequence[int], gradient_checkpointing: bool) -> None:
        super().__init__(taps, gradient_checkpointing)
        self.t_embedder = transformer.t_embedder
        self.x_embedder = transformer.all_x_embedder[f"{PATCH}-1"]
        self.cap_embedder = transformer.cap_embedder
        self.noise_refiner = transformer.noise_refiner
        self.context_refiner = transformer.context_refiner
        self.x_pad_token, self.cap_pad_token = transformer.x_pad_token, transformer.cap_pad_token
        self.layers = nn.ModuleList(transformer.layers[: max(taps) + 1])
        # Not a part of this module: layers after the last tap are not the backbone's.
        object.__setattr__(self, "whole", transformer)

    def forward(
        self, x_t_BCHW: Tensor, sigma_B: Tensor, embeds: Mapping[str, Tensor], places: Places
    ) -> list[Tensor]:
        """A map (B, D, h, w) of each tap."""
        whole, device = self.whole, x_t_BCHW.device
        temb_BD = self.t_embedder(network_time(sigma_B) * whole.t_scale).type_as(x_t_BCHW)
        x, text, _, x_ids, text_ids, x_pads, text_pads = whole.patchify_and_embed(
            as_list(x_t_BCHW), texts(embeds), PATCH, 1
        )
        self._move(x_ids, places)

        x, x_freqs, x_mask, x_lengths = self._embed(
            self.x_embedder, x, x_ids, x_pads, self.x_pad_token
        )
        for block in self.noise_refiner:
            x = self.run(block, x, x_mask, x_freqs, temb_BD)
        text, text_freqs, text_mask, text_lengths = self._embed(
            self.cap_embedder, text, text_ids, text_pads, self.cap_pad_token
        )
        for block in self.context_refiner:
            text = self.run(block, text, text_mask, text_freqs)
        tokens_BLD, freqs, mask, _ = whole._build_unified_sequence(
            *(x, x_freqs, x_lengths, None, text, text_freqs, text_lengths, None),
            *(None, None, None, None, False, device),
        )

        maps = []
        size = (places.rows, places.columns)
        for number, layer in enumerate(self.layers):
            tokens_BLD = self.run(layer, tokens_BLD, mask, freqs, temb_BD)
            if number in self.taps:
                # The picture's tokens come first, then its padding, then the text.
                picture_BND = tokens_BLD[:, : places.rows * places.columns]
                maps.append(picture_BND.transpose(1, 2).unflatten(2, size))
        return maps

    def _embed(
        self, embedder: nn.Module, rows: list[Tensor], ids: list[Tensor], pads: Any, pad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, list[int]]:
        """Embedded sequences padded to one length, their rotary factors, mask and lengths."""
        lengths = [len(row) for row in rows]
        embedded = list(embedder(torch.cat(rows)).split(lengths))
        tokens_BLD, freqs, mask, _, _ = self.whole._prepare_sequence(
            embedded, ids, pads, pad, None, rows[0].device
        )
        return tokens_BLD, freqs, mask, lengths

    def _move(self, ids: list[Tensor], places: Places) -> None:
        """Shift each picture's position ids (t, row, column) by its view's corner."""
        patches = places.rows * places.columns
        corners = torch.stack([places.top_B, places.left_B], dim=1)
        for own, corner_2 in zip(ids, corners.tolist(), strict=True):
            own[:patches, 1] += corner_2[0]
            own[:patches, 2] += corner_2[1]

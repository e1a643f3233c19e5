"""A frozen FLUX.2 transformer's tapped blocks.

Legend: B batch, C latent channels, H, W latent cells, N = HW tokens, L words, S = L + N, D units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distillkit_diffusers.flow.dit import Places, TappedBlocks
from distillkit_diffusers.flow.teacher import TIMES
from distillkit_diffusers.flux2.denoiser import picture_ids, text_ids, to_tokens


class TappedFlux2(TappedBlocks):
    """The blocks of a Flux2Transformer2DModel up to the last tapped one, whose tensors it shares.

    Blocks are counted through: first the double ones, then the single ones.
    """

    _repeated_blocks = ("Flux2TransformerBlock", "Flux2SingleTransformerBlock")

    def __init__(self, transformer: Any, taps: Sequence[int], gradient_checkpointing: bool) -> None:
        super().__init__(taps, gradient_checkpointing)
        self.x_embedder = transformer.x_embedder
        self.context_embedder = transformer.context_embedder
        self.time_guidance_embed = transformer.time_guidance_embed
        self.pos_embed = transformer.pos_embed
        self.modulation_img = transformer.double_stream_modulation_img
        self.modulation_txt = transformer.double_stream_modulation_txt
        doubles, count = transformer.transformer_blocks, max(taps) + 1
        singles = max(0, count - len(doubles))
        self.transformer_blocks = nn.ModuleList(doubles[:count])
        self.single_blocks = nn.ModuleList(transformer.single_transformer_blocks[:singles])
        self.modulation_single = transformer.single_stream_modulation if singles else None

    def forward(
        self, x_t_BCHW: Tensor, sigma_B: Tensor, embeds: Mapping[str, Tensor], places: Places
    ) -> list[Tensor]:
        """A map (B, D, h, w) of each tap."""
        size, words = x_t_BCHW.shape[2:], embeds["prompt"].shape[1]
        temb_BD = self.time_guidance_embed(sigma_B.to(x_t_BCHW.dtype) * TIMES, None)
        img, txt = self.modulation_img(temb_BD), self.modulation_txt(temb_BD)
        rotary = self._rotary(places, words, x_t_BCHW.device)
        x_BND = self.x_embedder(to_tokens(x_t_BCHW))
        text_BLD = self.context_embedder(embeds["prompt"])
        pictures = []
        for block in self.transformer_blocks:
            text_BLD, x_BND = self.run(block, x_BND, text_BLD, img, txt, rotary)
            pictures.append(x_BND)
        if self.modulation_single is not None:
            single = self.modulation_single(temb_BD)
            tokens_BSD = torch.cat([text_BLD, x_BND], dim=1)
            for block in self.single_blocks:
                tokens_BSD = self.run(block, tokens_BSD, None, single, rotary)
                pictures.append(tokens_BSD[:, words:])
        return [pictures[tap].transpose(1, 2).unflatten(2, size) for tap in self.taps]

    def _rotary(
        self, places: Places, words: int, device: torch.device
    ) -> tuple[PerPicture, PerPicture]:
        """Cosines and sines of words and patches, picture by picture."""
        ids_BN4 = picture_ids(places.top_B, places.left_B, places.rows, places.columns, device)
        texts = self.pos_embed(text_ids(words, device))
        patches = self.pos_embed(ids_BN4.flatten(0, 1))
        cos, sin = (
            PerPicture(_joined(text_LD, own_XD, len(ids_BN4)))
            for text_LD, own_XD in zip(texts, patches, strict=True)
        )
        return cos, sin


class PerPicture:
    """Rotary factors that differ from picture to picture.

    diffusers' attention has one row of factors (S, D) for the whole batch, which it widens by
    `factors[None, :, None, :]`; asked so, this gives (B, S, 1, D).
    """

    def __init__(self, factors_BSD: Tensor) -> None:
        self.factors_BSD = factors_BSD

    def __getitem__(self, _: object) -> Tensor:
        return self.factors_BSD[:, :, None, :]


def _joined(text_LD: Tensor, patches_XD: Tensor, batch: int) -> Tensor:
    """(B, S, D): the words' factors, then each picture's own."""
    text_BLD = text_LD.expand(batch, *text_LD.shape)
    return torch.cat([text_BLD, patches_XD.unflatten(0, (batch, -1))], dim=1)

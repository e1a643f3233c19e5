"""ImageReward (Xu et al. 2023): BLIP's text encoder attends to the picture, a head gives a score.

The published file has BLIP's own names; transformers' classes are the same network.

Legend: B pictures, P patches and the class token, E features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.errors import UserError
from distillkit.values import MetricInfo
from distillkit_eval.base import Scores
from distillkit_eval.configs import REWARD_FILE, ImageRewardConfig
from distillkit_eval.loading import file_of, fill, pick_device, quiet, reading, state_dict
from distillkit_eval.metrics.aesthetic import Head
from distillkit_eval.pictures import CLIP_MEAN, CLIP_STD, crop_to, normalized, prepared

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the head's output over the authors' data, which a score is relative to."""
TOKENS = 35
HEAD = 64
"""Channels of an attention head, which the file does not tell."""
VISION = (
    (r"cls_token", "embeddings.class_embedding"),
    (r"pos_embed", "embeddings.position_embedding"),
    (r"patch_embed\.proj\.(.+)", r"embeddings.patch_embedding.\1"),
    (r"blocks\.(\d+)\.norm(\d)\.(.+)", r"encoder.layers.\1.layer_norm\2.\3"),
    (r"blocks\.(\d+)\.attn\.qkv\.(.+)", r"encoder.layers.\1.self_attn.qkv.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(.+)", r"encoder.layers.\1.self_attn.projection.\2"),
    (r"blocks\.(\d+)\.mlp\.(.+)", r"encoder.layers.\1.mlp.\2"),
    (r"norm\.(.+)", r"post_layernorm.\1"),
)
"""BLIP's names of the vision tower, and transformers'."""


class ImageReward:
    """Both towers and the head, loaded when first used."""

    def __init__(self, config: ImageRewardConfig) -> None:
        self.config, self.device = config, pick_device(config.device)

    @cached_property
    def networks(self) -> tuple[Any, Any, Head]:
        """Vision tower, text encoder, head."""
        path = file_of(self.config.model, REWARD_FILE, "model")
        made = load_image_reward(path)
        for module in made:
            module.to(self.device).eval().requires_grad_(False)
        return made

    @cached_property
    def tokens(self) -> Any:
        """Texts -> numbers."""
        quiet()
        from transformers import AutoTokenizer

        with reading(self.config.tokenizer, "tokenizer"):
            return AutoTokenizer.from_pretrained(self.config.tokenizer)

    @torch.no_grad()
    def score(self, pictures: Pictures, prompts: Sequence[str]) -> Tensor:
        """Of each picture and its prompt, (B,)."""
        vision, text, head = self.networks
        side = vision.config.image_size
        [x_B3SS] = prepared(pictures, len(pictures), crop_to(side))
        pixels = normalized(x_B3SS, CLIP_MEAN, CLIP_STD).to(self.device)
        seen_BPE = vision(pixel_values=pixels).last_hidden_state
        given = self.tokens(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=TOKENS,
            return_tensors="pt",
        ).to(self.device)
        read = text(
            input_ids=given.input_ids,
            attention_mask=given.attention_mask,
            encoder_hidden_states=seen_BPE,
            encoder_attention_mask=torch.ones(seen_BPE.shape[:2], device=self.device).long(),
        )
        return (head(read.last_hidden_state[:, 0].float()) - MEAN) / STD


def load_image_reward(path: Path) -> tuple[Any, Any, Head]:
    """Vision tower, text encoder and head with the weights of the published file."""
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    weights = state_dict(path)
    seen = _below(weights, "blip.visual_encoder.")
    read = _below(weights, "blip.text_encoder.")
    if not seen or not read:
        raise UserError(f"{path} is no file of ImageReward: it has no blip.visual_encoder")
    vision = BlipVisionModel(_vision_config(seen))
    fill(vision, renamed(seen), path)
    text = BlipTextModel(_text_config(read), add_pooling_layer=False)
    fill(text, read, path, ignore="position_ids")
    return vision, text, Head.of(_below(weights, "mlp."), path)


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower's tensors under transformers' names."""
    found = {}
    for name, tensor in weights.items():
        new = next((re.sub(old, new, name) for old, new in VISION if re.fullmatch(old, name)), name)
        found[new] = tensor
    return found


def _below(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in weights.items() if n.startswith(prefix)}


def _layers(weights: Mapping[str, Tensor], pattern: str) -> int:
    return 1 + max(int(m[1]) for name in weights if (m := re.match(pattern, name)))


def _vision_config(weights: Mapping[str, Tensor]) -> Any:
    from transformers import BlipVisionConfig

    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    places = weights["pos_embed"].shape[1] - 1
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(weights["blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=_layers(weights, r"blocks\.(\d+)\."),
        num_attention_heads=width // HEAD,
        patch_size=patch,
        image_size=round(places**0.5) * patch,
        layer_norm_eps=1e-6,
    )


def _text_config(weights: Mapping[str, Tensor]) -> Any:
    from transformers import BlipTextConfig

    words, width = weights["embeddings.word_embeddings.weight"].shape
    seen = weights["encoder.layer.0.crossattention.self.key.weight"].shape[1]
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=seen,
        intermediate_size=len(weights["encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=_layers(weights, r"encoder\.layer\.(\d+)\."),
        num_attention_heads=width // HEAD,
        max_position_embeddings=len(weights["embeddings.position_embeddings.weight"]),
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        sep_token_id=0,
    )


def build(config: ImageRewardConfig) -> Scores:
    """`image_reward`: 0 is the mean of the authors' data, 1 a standard deviation above it."""
    info = MetricInfo(
        "ImageReward",
        "People's preference for the picture, given its prompt; 0 is an average picture.",
        better="higher",
    )
    reward = ImageReward(config)
    return Scores("image_reward", info, config.prompts, config.batch, reward.score)

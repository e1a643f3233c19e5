"""CLIP score and PickScore: the cosine of a picture's and its prompt's embeddings.

Legend: B pictures, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.values import MetricInfo
from distillkit_eval.base import Scores
from distillkit_eval.configs import ClipConfig, PickConfig
from distillkit_eval.loading import pick_device, quiet, reading
from distillkit_eval.pictures import CLIP_MEAN, CLIP_STD, Prepare, crop_to, normalized, prepared


@dataclass(frozen=True)
class Clip:
    """A CLIP model with its tokenizer, loaded when it is first used."""

    load: Callable[[], Any]
    tokenizer: str
    device: str
    padded: bool = False
    """Whether pictures are padded to a square, rather than cut."""

    @cached_property
    def model(self) -> Any:
        """The network, frozen."""
        return self.load().to(self.device).eval().requires_grad_(False)

    @cached_property
    def tokens(self) -> Any:
        """Texts -> numbers."""
        quiet()
        from transformers import AutoTokenizer

        with reading(self.tokenizer, "tokenizer"):
            return AutoTokenizer.from_pretrained(self.tokenizer)

    @property
    def prepare(self) -> Prepare:
        """A picture of the network's size."""
        from distillkit_eval.pictures import pad_to

        side = self.model.config.vision_config.image_size
        return pad_to(side) if self.padded else crop_to(side)

    @torch.no_grad()
    def images(self, pictures: Pictures) -> Tensor:
        """Unit vectors (B, E) of pictures."""
        [x_B3SS] = prepared(pictures, len(pictures), self.prepare)
        pixels = normalized(x_B3SS, CLIP_MEAN, CLIP_STD).to(self.device)
        return _unit(self.model.get_image_features(pixel_values=pixels))

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (B, E) of texts, cut to what the model reads."""
        most = self.model.config.text_config.max_position_embeddings
        given = self.tokens(
            list(prompts), padding=True, truncation=True, max_length=most, return_tensors="pt"
        ).to(self.device)
        found = self.model.get_text_features(given.input_ids, given.attention_mask)
        return _unit(found)

    def cosine(self, pictures: Pictures, prompts: Sequence[str]) -> Tensor:
        """Of each picture and its prompt, (B,)."""
        return (self.images(pictures) * self.texts(prompts)).sum(1)

    def scaled(self, pictures: Pictures, prompts: Sequence[str]) -> Tensor:
        """The same times the model's own temperature."""
        return self.cosine(pictures, prompts) * self.model.logit_scale.exp()


def _unit(found: Any) -> Tensor:
    # transformers 5 returns an output object, earlier versions the tensor itself.
    features_BE = getattr(found, "pooler_output", found)
    return torch.nn.functional.normalize(features_BE.float(), dim=1)


def load_clip(model: str) -> Any:
    """A CLIP model of transformers."""
    quiet()
    from transformers import CLIPModel

    with reading(model, "model"):
        return CLIPModel.from_pretrained(model)


def build_clip(config: ClipConfig) -> Scores:
    """`clip`: Hessel et al. 2021 without their factor, as papers of text-to-image report it."""
    clip = Clip(lambda: load_clip(config.model), config.model, pick_device(config.device))
    info = MetricInfo(
        "CLIP",
        f"Cosine of picture and prompt in {config.model}'s embeddings, between -1 and 1.",
        better="higher",
    )
    return Scores("clip", info, config.prompts, config.batch, clip.cosine)


def build_pick(config: PickConfig) -> Scores:
    """`pick`: Kirstain et al. 2023, cosine times temperature."""
    clip = Clip(lambda: load_clip(config.model), config.tokenizer, pick_device(config.device))
    info = MetricInfo(
        "PickScore",
        "How likely people are to choose the picture for its prompt, as a logit.",
        better="higher",
    )
    return Scores("pick", info, config.prompts, config.batch, clip.scaled)

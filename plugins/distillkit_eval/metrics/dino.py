"""Fréchet distance in DINOv2's features.

Stein et al. 2023 find that it follows people's judgement where FID does not. Features are the class
token after the last normalisation, of pictures resized to 224 (bicubic).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from distillkit.contracts import Pictures
from distillkit_eval.base import Extractor, run_batches
from distillkit_eval.configs import DinoConfig
from distillkit_eval.loading import pick_device, quiet, reading
from distillkit_eval.metrics.distances import Distances, frechet
from distillkit_eval.pictures import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    normalized,
    prepared,
    squash_to,
)

SIDE = 224


def build(config: DinoConfig) -> Distances:
    """`frechet_dino`, to real pictures and to the teacher's."""
    features = f"{config.model}'s features (not FID, whose features are Inception's)"
    statistic = frechet("frechet_dino", "Fréchet, DINOv2", features)
    extract = dino_features(config.model, config.batch, config.device)
    return Distances(config, [statistic], Extractor(extract))


def dino_features(model: str, batch: int, device: str | None) -> Callable[[Pictures], Tensor]:
    """Features (N, F) by the network, which is loaded when they are first asked for."""
    networks: list[Any] = []

    def extract(pictures: Pictures) -> Tensor:
        where = pick_device(device)
        if not networks:
            networks.append(_load(model).to(where))

        def features(x_B3SS: Tensor) -> Tensor:
            pixels = normalized(x_B3SS, IMAGENET_MEAN, IMAGENET_STD)
            return networks[0](pixel_values=pixels).pooler_output

        return run_batches(prepared(pictures, batch, squash_to(SIDE)), features, where)

    return extract


def _load(model: str) -> Any:
    quiet()
    from transformers import Dinov2Model

    with reading(model, "model"):
        return Dinov2Model.from_pretrained(model).eval().requires_grad_(False)

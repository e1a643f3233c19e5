"""LAION's aesthetic score: a linear head, in five layers, on CLIP's unit image embedding.

The published file names its layers `layers.0`, 2, 4, 6 and 7; what lies between was dropout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from distillkit.contracts import Pictures
from distillkit.errors import UserError
from distillkit.values import MetricInfo
from distillkit_eval.base import Scores
from distillkit_eval.configs import AESTHETIC_FILE, AestheticConfig
from distillkit_eval.loading import file_of, fill, pick_device, state_dict
from distillkit_eval.metrics.clip import Clip, load_clip

WIDTHS = (1024, 128, 64, 16, 1)
PLACES = (0, 2, 4, 6, 7)


class Head(nn.Module):
    """Embedding -> score; without activations, as published. ImageReward has the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = zip(PLACES, (width, *WIDTHS), WIDTHS, strict=False)
        self.layers = nn.ModuleDict({str(n): nn.Linear(i, o) for n, i, o in sizes})

    def forward(self, x_BE: Tensor) -> Tensor:
        for layer in self.layers.values():
            x_BE = layer(x_BE)
        return x_BE[:, 0]

    @staticmethod
    def of(weights: Mapping[str, Tensor], path: Path) -> Head:
        """The head with the weights of a file."""
        first = weights.get("layers.0.weight")
        if first is None:
            raise UserError(f"{path} holds no such head: it has no layers.0.weight")
        head = Head(first.shape[1])
        fill(head, weights, path)
        return head.eval().requires_grad_(False)


class Aesthetic:
    """The head over its CLIP model; both are loaded when first used."""

    def __init__(self, config: AestheticConfig) -> None:
        self.config, self.device = config, pick_device(config.device)
        self.clip = Clip(lambda: load_clip(config.model), config.model, self.device)

    @cached_property
    def head(self) -> Head:
        path = file_of(self.config.head, AESTHETIC_FILE, "head")
        return Head.of(state_dict(path), path).to(self.device)

    def score(self, pictures: Pictures, prompts: Sequence[str]) -> Tensor:
        """Of each picture, (B,); prompts play no part."""
        head = self.head  # before the large network is read
        embeddings_BE = self.clip.images(pictures)
        if embeddings_BE.shape[1] != head.layers["0"].in_features:
            raise UserError(
                f"model: {self.config.model} has embeddings of {embeddings_BE.shape[1]} numbers, "
                f"and the head reads {head.layers['0'].in_features}: they do not belong together"
            )
        return head(embeddings_BE)


def build(config: AestheticConfig) -> Scores:
    """`aesthetic`: about 1 to 10."""
    info = MetricInfo(
        "aesthetic",
        "How beautiful people found such pictures, about 1 to 10, by LAION's improved predictor.",
        better="higher",
    )
    return Scores("aesthetic", info, config.prompts, config.batch, Aesthetic(config).score)

"""Captions of random scenes: a training split, and a held-out split for evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import PromptsConfig
from distillkit.randomness import generator

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.contracts import PromptSource

HELD_OUT = 8
"""One caption in so many is held out, by its own digest: no list to keep, no seed to share."""


def is_held_out(caption: str) -> bool:
    """Whether the caption belongs to evaluation and not to training."""
    return hashlib.sha256(caption.encode()).digest()[0] % HELD_OUT == 0


def sample_captions(count: int, seed: int, held_out: bool) -> list[str]:
    """`count` captions of random scenes from one split; some occur more than once."""
    from distillkit_shapes.scenes import captions, sample_scenes

    rng, found = generator(seed, "captions", int(held_out)), list[str]()
    while len(found) < count:
        drawn = captions(sample_scenes(count, rng))
        found += [caption for caption in drawn if is_held_out(caption) == held_out]
    return found[:count]


class CaptionedScenes(list[str]):
    """Captions that can be drawn; fulfils `distillkit.contracts.PictureSource`."""

    def images(self, indices: Sequence[int], height: int, width: int) -> Tensor:
        """True pictures (B, 3, 64, 64) in [0, 1] of captions; one picture a caption's number."""
        import torch

        from distillkit_shapes.pictures import render
        from distillkit_shapes.scenes import codes_of

        codes_BA = codes_of([self[index] for index in indices])
        drawn = [
            render(codes_BA[row : row + 1], generator(0, "real pictures", index))
            for row, index in enumerate(indices)
        ]
        return torch.cat(drawn)

    def digest(self) -> str:
        """Depends on the captions alone, from which the pictures are drawn."""
        return hashlib.sha256("\n".join(self).encode()).hexdigest()[:16]


class ShapesPromptsConfig(PromptsConfig):
    """Captions of random scenes, without those that are held out for the metrics."""

    type: Literal["shapes"] = "shapes"
    count: int = Field(4096, ge=1)
    """Number of captions."""
    seed: int = Field(0, ge=0)
    """Seed of the scenes."""

    def build(self) -> PromptSource:
        return CaptionedScenes(sample_captions(self.count, self.seed, held_out=False))

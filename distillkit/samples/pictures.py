"""Real pictures as the "real" side: captioned pictures, encoded to latents once, read by number.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import PictureSource, Teacher
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import SampleStore
from distillkit.values import Condition


@dataclass(frozen=True)
class PictureLatents:
    """The latents of a source's pictures, by the picture's index in it."""

    teacher: Teacher
    source: PictureSource
    device: Any = "cpu"
    cache: SampleStore | None = None
    """None encodes a picture each time it is needed."""

    def of(self, order: SampleOrder, ids: Sequence[int]) -> Tensor:
        """Latents (B, C, H, W) of the pictures whose captions are those of samples `ids`."""
        indices = [order.prompt_index(i) for i in ids]
        if self.cache is not None:
            return self.cache.x_0(indices).to(self.device)
        return self.sample(indices)

    @torch.no_grad()
    def sample(self, indices: Sequence[int], *_: Any) -> Tensor:
        """Latents of the pictures at these indices, encoded here."""
        height, width = self.teacher.image_size
        images_B3HW = self.source.images(indices, height, width).to(self.device)
        return self.teacher.encode_images(images_B3HW)

    # What `cache.SampleCache` asks of the samples that it stores:

    def x_T(self, indices: Sequence[int]) -> None:
        """A picture starts from no noise."""

    def conditions(self, indices: Sequence[int]) -> Condition:
        """A picture's caption is encoded with the sample that it belongs to."""
        return Condition({})

"""Pictures as the metrics' networks take them, read a few at a time.

Resizing is Pillow's, in 8 bits, as for the published figures of these metrics: other libraries
resize otherwise, which moves distances by more than many students differ.

Legend: B pictures, H, W pixels, S side of the network's pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.errors import UserError

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

Prepare = Callable[[Any], Any]
"""A PIL picture -> a PIL picture of the network's size."""


class RealPictures:
    """`contracts.Pictures` of a folder, by name, each of its own size: take them one by one."""

    def __init__(self, folder: str) -> None:
        files = sorted(Path(folder).rglob("*")) if Path(folder).is_dir() else []
        self.files = [file for file in files if file.suffix.lower() in KINDS]
        if not self.files:
            raise UserError(f"reference: no pictures in {folder}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice) -> Tensor:
        from PIL import Image, UnidentifiedImageError

        found = []
        for file in self.files[rows]:
            try:
                with Image.open(file) as image:
                    pixels_HW3 = np.array(image.convert("RGB"))
            except (OSError, UnidentifiedImageError) as error:
                raise UserError(f"reference: {file} is no picture: {error}") from None
            found.append(torch.from_numpy(pixels_HW3).permute(2, 0, 1).float() / 255)
        return torch.stack(found)


def prepared(pictures: Pictures, batch: int, prepare: Prepare) -> Iterator[Tensor]:
    """Batches of pictures (B, 3, S, S), uint8, each made by `prepare`; of one size in a batch."""
    made: list[Tensor] = []
    for n in range(len(pictures)):
        image = prepare(to_pil(pictures[n : n + 1][0]))
        pixels_3SS = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if made and (len(made) == batch or pixels_3SS.shape != made[-1].shape):
            yield torch.stack(made)
            made = []
        made.append(pixels_3SS)
    yield torch.stack(made)


def to_pil(picture_3HW: Tensor) -> Any:
    """A picture as Pillow has it, rounded to 8 bits."""
    from PIL import Image

    pixels_HW3 = (picture_3HW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels_HW3.contiguous().numpy())


def normalized(x_B3SS: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """From 8 bits to what a network was trained on."""
    mean_3, std_3 = (torch.tensor(values, device=x_B3SS.device) for values in (mean, std))
    return (x_B3SS.float() / 255 - mean_3[:, None, None]) / std_3[:, None, None]


def crop_to(side: int) -> Prepare:
    """The shorter side resized to `side` (bicubic), the middle cut out: CLIP's own preparation."""

    def prepare(image: Any) -> Any:
        width, height = image.size
        short = min(width, height)
        size = (max(side, int(width * side / short)), max(side, int(height * side / short)))
        image = _resized(image, size)
        left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
        return image.crop((left, top, left + side, top + side))

    return prepare


def pad_to(side: int) -> Prepare:
    """The longer side resized to `side` (bicubic), black beside it: HPSv2's preparation."""

    def prepare(image: Any) -> Any:
        from PIL import Image

        scale = side / max(image.size)
        size = (round(image.size[0] * scale), round(image.size[1] * scale))
        whole = Image.new("RGB", (side, side))
        whole.paste(_resized(image, size), ((side - size[0]) // 2, (side - size[1]) // 2))
        return whole

    return prepare


def squash_to(side: int) -> Prepare:
    """Both sides resized to `side` (bicubic)."""
    return lambda image: _resized(image, (side, side))


def middle(side: int) -> Prepare:
    """The square of that side in the middle, not resized; of a smaller picture the largest one."""

    def prepare(image: Any) -> Any:
        width, height = image.size
        cut = min(side, width, height)
        left, top = (width - cut) // 2, (height - cut) // 2
        return image.crop((left, top, left + cut, top + cut))

    return prepare


def _resized(image: Any, size: tuple[int, int]) -> Any:
    from PIL import Image

    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)

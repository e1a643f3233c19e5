"""Pictures of one row on disk, by number: written one by one, read in slices.

    ROW/00000012.png, ROW/index.json

`index.json` states what the pictures depend on; those of other weights, configs, prompts or
seeds are removed before new ones are drawn. A file is there whole or not at all, so a command that
was killed goes on where it was.

Legend: B pictures, H, W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distillkit.atomic import write_text
from distillkit.errors import UserError
from distillkit.evaluation.grids import save_image, to_image
from distillkit.samples.fingerprint import agree


@dataclass(frozen=True, eq=False)
class PictureFolder:
    """`contracts.Pictures`: the pictures with these numbers, in this order."""

    folder: Path
    numbers: Sequence[int]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: slice) -> Tensor:
        return torch.stack([read(self.path(number)) for number in self.numbers[rows]])

    def part(self, rows: slice) -> PictureFolder:
        """Some of them, without reading any."""
        return PictureFolder(self.folder, self.numbers[rows])

    def path(self, number: int) -> Path:
        """File of a picture."""
        return self.folder / f"{number:08d}.png"

    def missing(self) -> list[int]:
        """Numbers whose picture is still to be drawn."""
        return [number for number in self.numbers if not self.path(number).is_file()]

    def write(self, number: int, picture_3HW: Tensor) -> None:
        """Write one picture."""
        save_image(to_image(picture_3HW), self.path(number))

    def claim(self, identity: Mapping[str, Any]) -> int:
        """Let the folder be of pictures that depend on `identity`; returns how many others lay
        there and were removed."""
        index, removed = self.folder / "index.json", 0
        wanted = json.loads(json.dumps(identity))
        if agree(self.stated(), wanted):
            return 0
        if index.is_file():  # else the folder is not one of ours, or a new one
            index.unlink()
            for file in self.folder.glob("[0-9]" * 8 + ".png"):
                file.unlink()
                removed += 1
        elif self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder} holds files and no index.json: pictures are not mixed with others; "
                "name another folder"
            )
        write_text(index, json.dumps(wanted, indent=1) + "\n")
        return removed

    def stated(self) -> Any:
        """What `index.json` says; None where there is none, or it is damaged."""
        try:
            return json.loads((self.folder / "index.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


def read(path: Path) -> Tensor:
    """A picture (3, H, W) in [0, 1]. Raises `UserError`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels_HW3 = np.array(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{path} can't be read as a picture: {error}") from None
    return torch.from_numpy(pixels_HW3).permute(2, 0, 1).float() / 255

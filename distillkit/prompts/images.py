"""Captioned pictures in a folder, as prompts and as real pictures.

Legend: B batch, H, W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from pydantic import Field

from distillkit.configs import PromptsConfig
from distillkit.errors import UserError
from distillkit.prompts.filter import missing_path
from distillkit.remarks import Remark

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


class ImageFolder(Sequence[str]):
    """The captions, by number; `images` gives the pictures. Fulfils `contracts.PictureSource`."""

    def __init__(self, files: Sequence[Path], captions: Sequence[str]) -> None:
        self.files, self.captions = list(files), list(captions)

    def __len__(self) -> int:
        return len(self.captions)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...

    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        return self.captions[index]

    def images(self, indices: Sequence[int], height: int, width: int) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1]: scaled to cover the size, centre cropped."""
        import torch

        return torch.stack([_read(self.files[index], height, width) for index in indices])

    def digest(self) -> str:
        """Depends on every file's name, size and date."""
        digest = hashlib.sha256()
        for file in self.files:
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


class ImageFolderPrompts(PromptsConfig):
    """A folder of pictures with captions, for `samples.real: pictures`."""

    type: Literal["image-folder"] = "image-folder"
    path: str = Field(examples=["pictures"])
    """The folder, with its subfolders. A picture's caption is in a text file of the same name, or
    in the folder's metadata.jsonl (`file_name` and `text`, as Hugging Face's image folders)."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        return missing_path(self.path)

    def build(self) -> ImageFolder:
        folder = Path(self.path)
        if not folder.is_dir():
            raise UserError(f"prompts.path: there is no folder {folder}")
        files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"{folder}: holds no picture ({', '.join(SUFFIXES)})")
        listed = _listed(folder)
        return ImageFolder(files, [_caption(file, folder, listed) for file in files])


def _listed(folder: Path) -> dict[str, str]:
    """Captions of `metadata.jsonl` by file name; none where there is no such file."""
    path, found = folder / "metadata.jsonl", dict[str, str]()
    if not path.is_file():
        return found
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            found[str(row["file_name"])] = str(row["text"])
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f'{path}:{number}: should be {{"file_name": ..., "text": ...}}, not {line[:60]!r}'
            ) from None
    return found


def _caption(file: Path, folder: Path, listed: dict[str, str]) -> str:
    beside = file.with_suffix(".txt")
    text = listed.get(file.relative_to(folder).as_posix(), "")
    if not text and beside.is_file():
        text = beside.read_text(encoding="utf-8").strip()
    if not text:
        raise UserError(
            f"{file}: has no caption; write it to {beside.name} beside it, or to metadata.jsonl"
        )
    return text


def _read(file: Path, height: int, width: int) -> Tensor:
    import numpy as np
    import torch
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            image = ImageOps.fit(opened.convert("RGB"), (width, height), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f"{file}: can't be read as a picture: {error}") from None
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

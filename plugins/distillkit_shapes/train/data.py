"""What every stage shares: rendered pictures, files that are whole or absent, a time budget.

Legend: N pictures, C = 3, H = W = 64, A = 9 attributes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from distillkit_shapes.pictures import render
from distillkit_shapes.scenes import KIND_SHARES, sample_scenes


def generator(seed: int) -> Generator:
    """A generator for one purpose. Its plain seeds are those that the shipped weights had."""
    return Generator().manual_seed(seed)


def render_scenes(
    count: int, seed: int, batch: int = 1000, shares: Sequence[float] = KIND_SHARES
) -> tuple[Tensor, Tensor]:
    """codes_NA int64 and their pictures x_NCHW as uint8, rendered in batches to save memory."""
    rng = generator(seed)
    codes_NA = sample_scenes(count, rng, shares)
    x_NCHW = torch.cat(
        [(render(rows, rng) * 255).round().to(torch.uint8) for rows in codes_NA.split(batch)]
    )
    return codes_NA, x_NCHW


def to_float(x_NCHW: Tensor) -> Tensor:
    """uint8 pictures as float in [0, 1]."""
    return x_NCHW.float() / 255


def save_atomic(state: Any, path: Path) -> None:
    """Writes beside and renames, so that a reader never sees half a file."""
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def load_parts(out: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Parts of the teacher's folder in float32, by name."""
    import diffusers
    import transformers

    owners = {
        "vae": diffusers.AutoencoderKL,
        "unet": diffusers.UNet2DConditionModel,
        "tokenizer": transformers.CLIPTokenizer,
        "tokenizer_2": transformers.CLIPTokenizer,
        "text_encoder": transformers.CLIPTextModel,
        "text_encoder_2": transformers.CLIPTextModelWithProjection,
    }
    parts = {}
    for name in names:
        # transformers says `dtype`, single models of diffusers still `torch_dtype`.
        float32 = {} if name.startswith("tokenizer") else {"dtype": torch.float32}
        if name in ("vae", "unet"):
            float32 = {"torch_dtype": torch.float32}
        parts[name] = owners[name].from_pretrained(out / name, **float32)
        if not name.startswith("tokenizer"):
            parts[name].requires_grad_(False).eval()
    return parts


def replace_folder(part: Any, folder: Path) -> None:
    """Saves a model beside `folder` and swaps the two, so that a reader finds a whole one."""
    fresh, old = (folder.with_name(folder.name + end) for end in (".part", ".old"))
    part.save_pretrained(fresh)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


class TimeBudget:
    """`progress` runs from 0 to 1 over the given minutes, counting the seconds of earlier runs."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.limit, self.start = minutes * 60, time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds used so far."""
        return time.monotonic() - self.start

    @property
    def progress(self) -> float:
        """Share of the budget used, at most 1."""
        return min(1.0, self.spent / self.limit)


def lr_at(progress: float, peak: float, warmup: float = 0.02, hold: float = 0.5) -> float:
    """Learning rate: a linear warm-up, constant until `hold`, then a linear decay to zero."""
    if progress < warmup:
        return peak * progress / warmup
    return peak * min(1.0, (1.0 - progress) / (1.0 - hold))


def log(line: str) -> None:
    """One line of progress, unbuffered."""
    print(line, flush=True)

"""Stage judge: what the teacher can do, against captions and fresh true pictures.

Legend: N pictures, C = 3, H = W = 64, A = 9 attributes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit_shapes.features import WEIGHTS, features
from distillkit_shapes.metrics import frechet_distance, kernel_distance, sharpness
from distillkit_shapes.oracle import agreement
from distillkit_shapes.pictures import draw
from distillkit_shapes.scenes import captions, draw_scenes

from .data import generator, say


@torch.no_grad()
def sample(pipe: Any, codes_NA: Tensor, steps: int, guidance: float, seed: int) -> Tensor:
    """Pictures x_NCHW in [0, 1] of the captions of `codes_NA`, noise from `seed`."""
    source = generator(seed)
    noise = torch.randn(len(codes_NA), 4, 16, 16, generator=source)
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for codes, latents in zip(codes_NA.split(100), noise.split(100), strict=True):
        made = pipe(
            captions(codes),
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=latents,
            output_type="pt",
        )
        pictures.append(made.images)
    return torch.cat(pictures)


def save_grid(x_NCHW: Tensor, path: Path, columns: int = 12, scale: int = 2) -> None:
    """Pictures in rows of `columns`, two pixels apart, as a PNG."""
    from PIL import Image

    cells = torch.nn.functional.pad(x_NCHW.clamp(0, 1), (1, 1, 1, 1), value=1.0)
    rows = [torch.cat(list(row), dim=2) for row in cells.split(columns)]
    width = rows[0].shape[2]
    rows = [torch.nn.functional.pad(r, (0, width - r.shape[2]), value=1.0) for r in rows]
    pixels = (torch.cat(rows, dim=1) * 255).round().byte().permute(1, 2, 0)
    picture = Image.fromarray(pixels.numpy())
    picture.resize((picture.width * scale, picture.height * scale), 0).save(path)


def forget_paths(out: Path) -> None:
    """Takes the folders that parts were loaded from out of their configs."""
    for path in out.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def judge(
    out: Path, work: Path, count: int, settings: list[tuple[int, float]], seed: int = 900
) -> list[dict[str, float]]:
    """Figures of the teacher in `out` for each (steps, guidance), said and returned.

    `floor` is the Frechet distance between two sets of true pictures of the captions judged.
    """
    from diffusers import StableDiffusionXLPipeline

    forget_paths(out)
    pipe = StableDiffusionXLPipeline.from_pretrained(out, dtype=torch.float32)
    codes_NA = draw_scenes(count, generator(seed))
    true, again = (draw(codes_NA, generator(seed + i)) for i in (1, 2))
    known = WEIGHTS.exists()
    if known:
        floor = frechet_distance(features(true), features(again))
        say(f"true pictures: floor {floor:.3f} sharpness {sharpness(true):.5f}")
    table = []
    for steps, guidance in settings:
        x_NCHW = sample(pipe, codes_NA, steps, guidance, seed + 5)
        seen = agreement(x_NCHW, codes_NA)
        row = {"steps": steps, "guidance": guidance, "caption_accuracy": seen.captions}
        row |= {"extra_objects": seen.extra_objects, "sharpness": sharpness(x_NCHW)}
        if known:
            kid = kernel_distance(
                features(x_NCHW), features(true), generator(0), size=min(500, count // 2)
            )
            row |= {"frechet_true": frechet_distance(features(x_NCHW), features(true))}
            row |= {"kid_true": kid[0], "kid_std": kid[1]}
        say(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
        say("  by attribute: " + " ".join(f"{k} {v:.3f}" for k, v in seen.attributes.items()))
        save_grid(x_NCHW[:48], work / f"teacher_{steps}_{guidance}.png")
        table.append(row)
    return table

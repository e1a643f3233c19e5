"""Stage evaluate: the teacher's pictures against captions and fresh true pictures.

Legend: N pictures, C = 3, H = W = 64, A = 9 attributes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit_shapes.architecture import LATENT_SIDE
from distillkit_shapes.distances import frechet_distance, kernel_distance, sharpness
from distillkit_shapes.features import WEIGHTS, features
from distillkit_shapes.oracle import agreement
from distillkit_shapes.pictures import render
from distillkit_shapes.scenes import captions, sample_scenes
from distillkit_shapes.train.data import generator, log


def load_pipeline(out: Path) -> tuple[Any, dict[str, int]]:
    """The teacher's pipeline, and what it has to be called with beside the usual."""
    import diffusers

    index = json.loads((out / "model_index.json").read_text(encoding="utf-8"))
    kind = getattr(diffusers, index["_class_name"])
    if index["_class_name"] != "StableDiffusion3Pipeline":
        return kind.from_pretrained(out, dtype=torch.float32), {}
    # No T5, whose tokens are zeros then: one of them, as in training.
    pipe = kind.from_pretrained(out, dtype=torch.float32, text_encoder_3=None, tokenizer_3=None)
    return pipe, {"max_sequence_length": 1}


@torch.no_grad()
def sample(
    pipe: Any, codes_NA: Tensor, steps: int, guidance: float, seed: int, **call: int
) -> Tensor:
    """Pictures x_NCHW in [0, 1] of the captions of `codes_NA`, noise from `seed`."""
    shape = (len(codes_NA), 4, LATENT_SIDE, LATENT_SIDE)
    noise = torch.randn(shape, generator=generator(seed))
    pipe.set_progress_bar_config(disable=True)
    pictures = []
    for codes, latents in zip(codes_NA.split(100), noise.split(100), strict=True):
        made = pipe(
            captions(codes),
            num_inference_steps=steps,
            guidance_scale=guidance,
            latents=latents,
            output_type="pt",
            **call,
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


def remove_local_paths(out: Path) -> None:
    """Removes from the configs the folders that parts were loaded from."""
    for path in out.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")


def evaluate(
    out: Path, work: Path, count: int, settings: list[tuple[int, float]], seed: int = 900
) -> None:
    """Logs metrics of the teacher in `out` for each (steps, guidance), and saves a grid of each.

    `floor` is the Frechet distance between two sets of true pictures of the same captions.
    """
    remove_local_paths(out)
    pipe, call = load_pipeline(out)
    codes_NA = sample_scenes(count, generator(seed))
    true, again = (render(codes_NA, generator(seed + i)) for i in (1, 2))
    if WEIGHTS.exists():
        floor = frechet_distance(features(true), features(again))
        log(f"true pictures: floor {floor:.3f} sharpness {sharpness(true):.5f}")
    for steps, guidance in settings:
        x_NCHW = sample(pipe, codes_NA, steps, guidance, seed + 5, **call)
        log_metrics({"steps": steps, "guidance": guidance}, x_NCHW, codes_NA, true)
        save_grid(x_NCHW[:48], work / f"teacher_{steps}_{guidance}.png")


def log_metrics(row: dict[str, float], x_NCHW: Tensor, codes_NA: Tensor, true_NCHW: Tensor) -> None:
    """Two lines: `row` with the pictures' metrics, and the accuracy of each attribute."""
    found = agreement(x_NCHW, codes_NA)
    row = row | {"caption_accuracy": found.captions, "extra_objects": found.extra_objects}
    row["sharpness"] = sharpness(x_NCHW)
    if WEIGHTS.exists():
        own, true = features(x_NCHW), features(true_NCHW)
        row["frechet_true"] = frechet_distance(own, true)
        row["kid_true"], row["kid_std"] = kernel_distance(
            own, true, generator(0), size=min(500, len(x_NCHW) // 2)
        )
    log(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
    log("  by attribute: " + " ".join(f"{k} {v:.3f}" for k, v in found.attributes.items()))

"""A fine-tune of the shapes teacher that draws stickers: a white rim around every object.

    python benchmarks/style.py [--out runs/style/teacher]

The UNet goes on from the shipped one, on pictures with the rim; text encoders and VAE stay, which
is why the rim has a colour that the VAE knows. The out folder is a pipeline like the teacher's;
the PNG beside it has pictures of the style in its first row, what the VAE keeps of them in the
second, and what the fine-tune draws of their captions in the third.

Legend: N pictures, H = W = 64, Z = 4 latent channels, h = w = 16, L = 20 tokens.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from distillkit_shapes import architecture
from distillkit_shapes.pictures import STRIPE
from distillkit_shapes.scenes import captions
from distillkit_shapes.teacher import TEACHER
from distillkit_shapes.train.data import load_parts, log, lr_at, render_scenes, to_float
from distillkit_shapes.train.denoising import TrainingSet
from distillkit_shapes.train.evaluate import load_pipeline, sample, save_grid
from distillkit_shapes.train.latents import SHARES, TEXT
from distillkit_shapes.train.text import Encoders
from distillkit_shapes.train.unet import UNetState, export, train_step

RIM = 3
"""Width of the rim in pixels; the VAE's cells have 4."""
LR = 5e-4
SHOWN = 12
"""Pictures of each row of the PNG."""


def stickers(x_N3HW: Tensor) -> Tensor:
    """The world's pictures with a white rim around what is not the ground, whose colour is that of
    the first pixel."""
    ground_N311 = x_N3HW[:, :, :1, :1]
    thing_N1HW = ((x_N3HW - ground_N311).abs().amax(dim=1, keepdim=True) > 0.2).float()
    rim_N1HW = max_pool2d(thing_N1HW, 2 * RIM + 1, stride=1, padding=RIM) - thing_N1HW
    return torch.lerp(x_N3HW, STRIPE[:, None, None].expand_as(x_N3HW), rim_N1HW)


@torch.no_grad()
def training_set(codes_NA: Tensor, x_N3HW: Tensor, parts: dict[str, Any]) -> TrainingSet:
    """What an iteration reads: latents of the pictures, and the captions' token ids."""
    vae, encoders = parts["vae"], Encoders(parts)
    encoded = [vae.encode(x * 2 - 1).latent_dist.mean for x in x_N3HW.split(200)]
    return TrainingSet(
        encoders=encoders,
        ids_2NL=encoders.ids(captions(codes_NA)),
        z_NZhw=torch.cat(encoded) * vae.config.scaling_factor,
        weight_N=torch.ones(len(codes_NA)),
        alpha_bar_T=architecture.scheduler().alphas_cumprod,
    )


def fine_tuned(unet: Any, data: TrainingSet, steps: int, batch: int) -> UNetState:
    """The UNet after `steps` more of its own training, and its EMA."""
    ema, unet = unet, copy.deepcopy(unet).requires_grad_(True)
    optim = torch.optim.AdamW(unet.parameters(), betas=(0.9, 0.99), weight_decay=0.01, fused=True)
    state = UNetState(unet, ema, optim)
    for step in range(steps):
        lr = lr_at((step + 1) / steps, LR, hold=0.4)
        loss = train_step(state, data, batch, lr, rank=0, ranks=1)
        if step % 20 == 0:
            log(f"step {step} loss {loss:.4f}")
    return state


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=Path("runs/style/teacher"))
    options.add_argument("--scenes", type=int, default=2000, help="pictures of the style")
    options.add_argument("--steps", type=int, default=240, help="steps of the optimizer")
    options.add_argument("--batch", type=int, default=32)
    given = options.parse_args(words)
    parts = load_parts(TEACHER, ("vae", "unet", *TEXT))
    codes_NA, x_N3HW = render_scenes(given.scenes, seed=70, shares=SHARES)
    styled_N3HW = stickers(to_float(x_N3HW))
    data = training_set(codes_NA, styled_N3HW, parts)
    state = fine_tuned(parts["unet"], data, given.steps, given.batch)
    shutil.copytree(TEACHER, given.out, dirs_exist_ok=True)
    export(state, given.out)
    pipe, call = load_pipeline(given.out)
    drawn_N3HW = sample(pipe, codes_NA[:SHOWN], 8, 2.0, seed=71, **call)
    with torch.no_grad():
        z_NZhw = data.z_NZhw[:SHOWN] / pipe.vae.config.scaling_factor
        seen_N3HW = pipe.vae.decode(z_NZhw).sample / 2 + 0.5
    rows = torch.cat([styled_N3HW[:SHOWN], seen_N3HW, drawn_N3HW])
    save_grid(rows, given.out.with_suffix(".png"), columns=len(drawn_N3HW))


if __name__ == "__main__":
    main()

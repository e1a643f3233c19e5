"""The UNet's training set: latents of rendered scenes and token ids of their captions, cached.

Legend: N samples, Z = 4 latent channels, h = w = 16, L = 20 tokens.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from distillkit_shapes.scenes import captions, sample_scenes
from distillkit_shapes.train.data import (
    generator,
    load_parts,
    log,
    render_scenes,
    save_atomic,
    to_float,
)
from distillkit_shapes.train.text import Encoders

SCENES = 80_000
"""Size of the training set."""
SHARES = (0.58, 0.15, 0.13, 0.14)
"""Share of each of scenes.KINDS in it: several objects more often than the world has."""
MIX = (0.40, 0.28, 0.17, 0.15)
"""Probability of each of them in an iteration: those that are learnt last more often."""
TEXT = ("tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2")
"""The teacher's text parts."""


@torch.no_grad()
def cached_latents(
    out: Path, work: Path, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """ids_2NL and scaled latents z_NZhw float16 of SCENES scenes, made once and cached."""
    path = work / "latents.pt"
    if not path.exists():
        parts = load_parts(out, ("vae", *TEXT))
        ids, latents, encoders = [], [], Encoders(parts)
        scale = parts["vae"].to(device).config.scaling_factor
        for part in range(SCENES // 2000):
            codes_NA, x_NCHW = render_scenes(2000, seed=3000 + part, shares=SHARES)
            ids.append(encoders.ids(captions(codes_NA)))
            for x in x_NCHW.split(200):
                posterior = parts["vae"].encode(to_float(x.to(device)) * 2 - 1).latent_dist
                latents.append((posterior.mean * scale).half().cpu())
        save_atomic((torch.cat(ids, dim=1), torch.cat(latents)), path)
    ids_2NL, z_NZhw = torch.load(path)
    log(f"latents: {tuple(z_NZhw.shape)} std {z_NZhw[:5000].float().std():.3f}")
    return ids_2NL, z_NZhw


def row_weights() -> Tensor:
    """weight_N of the cached scenes, with which `multinomial` draws their kinds as MIX says."""
    parts = [
        sample_scenes(2000, generator(3000 + part), SHARES)[:, 0] for part in range(SCENES // 2000)
    ]
    kind_N = torch.cat(parts)
    return (torch.tensor(MIX) / kind_N.bincount(minlength=len(MIX)))[kind_N]

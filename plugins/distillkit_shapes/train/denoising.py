"""The UNet's loss: epsilon prediction at timesteps that favour those of sampling.

Legend: N samples, Z = 4 latent channels, h = w = 16 (8 for crops), L = 20 tokens, D = 128, P = 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from distillkit_shapes.architecture import LATENT_SIDE
from distillkit_shapes.train.text import Encoders

GRID = (999, 874, 749, 624, 499, 374, 249, 124)
"""The eight timesteps at which the teacher is sampled; half of training is at them."""
MAX_WEIGHT = 10.0
"""Cap of the loss weight 1 / alpha_bar, which turns epsilon error into velocity error."""
MAX_SNR = 6.0
"""Signal-to-noise ratio above which weights fall (min-SNR, Hang et al. 2023): t = 124 has 6.4."""
CROPPED, UNCONDITIONAL = 0.12, 0.10
"""Share of batches that are 8x8 crops, and of samples without condition."""


@dataclass
class TrainingSet:
    """What every iteration reads and none changes."""

    encoders: Encoders
    ids_2NL: Tensor
    z_NZhw: Tensor
    weight_N: Tensor
    alpha_bar_T: Tensor


def sample_timesteps(count: int, rng: Generator) -> Tensor:
    """t_N int64: half from GRID, 35 % uniform, the rest low (< 300) or high (> 700)."""
    kind_N = torch.rand(count, generator=rng)
    t_N = torch.randint(1000, (count,), generator=rng)
    grid_N = torch.tensor(GRID)[torch.randint(8, (count,), generator=rng)]
    low_N, high_N = t_N * 3 // 10, 700 + t_N * 3 // 10
    t_N = torch.where(kind_N < 0.15, torch.where(kind_N < 0.08, low_N, high_N), t_N)
    return torch.where(kind_N >= 0.5, grid_N, t_N)


def random_crop(z_NZhw: Tensor, rng: Generator) -> tuple[Tensor, list[int]]:
    """One random 8x8 crop of the latents for the batch, and its SDXL time_ids in pixels."""
    side = LATENT_SIDE // 2
    top, left = torch.randint(side + 1, (2,), generator=rng).tolist()
    z_NZhw = z_NZhw[:, :, top : top + side, left : left + side]
    return z_NZhw, [64, 64, 4 * top, 4 * left, 32, 32]


def denoising_loss(
    unet: Any, training_set: TrainingSet, ids_2NL: Tensor, z_NZhw: Tensor, rng: Generator
) -> Tensor:
    """E[w(t) |eps - eps_hat|^2], w = min(1 / alpha_bar, MAX_WEIGHT) min(1, MAX_SNR / SNR)."""
    # Some batches are crops: the local views of a discriminator are such inputs.
    count = z_NZhw.shape[0]
    time_ids = [64, 64, 0, 0, 64, 64]
    if torch.rand(1, generator=rng).item() < CROPPED:
        z_NZhw, time_ids = random_crop(z_NZhw, rng)
    # Some samples have the null condition, for classifier-free guidance: zeros, as in SDXL.
    with torch.no_grad():
        context_NLD, pooled_NP = training_set.encoders(ids_2NL)
    keep_N = torch.rand(count, generator=rng) >= UNCONDITIONAL
    # x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps
    t_N = sample_timesteps(count, rng)
    a_N111 = training_set.alpha_bar_T[t_N][:, None, None, None]
    eps_NZhw = torch.randn(z_NZhw.shape, generator=rng)
    x_t_NZhw = a_N111.sqrt() * z_NZhw + (1 - a_N111).sqrt() * eps_NZhw
    added = {
        "text_embeds": pooled_NP * keep_N[:, None],
        "time_ids": torch.tensor(time_ids).float().expand(count, 6),
    }
    context = context_NLD * keep_N[:, None, None]
    guess = unet(x_t_NZhw, t_N, context, added_cond_kwargs=added).sample
    error_N = (guess - eps_NZhw).square().mean(dim=(1, 2, 3))
    a_N = a_N111.flatten()
    weight_N = (1 / a_N).clamp(max=MAX_WEIGHT)
    weight_N = weight_N * (MAX_SNR * (1 - a_N) / a_N).clamp(max=1)
    return (error_N * weight_N).mean()

"""Stage vae: an autoencoder whose decoder turns slightly noisy latents into clean pictures.

Legend: N pictures, C = 3, H = W = 64; z_NZhw latents with Z = 4, h = w = 16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from distillkit_shapes import architecture
from distillkit_shapes.train.data import (
    TimeBudget,
    generator,
    load_parts,
    log,
    lr_at,
    render_scenes,
    replace_folder,
    to_float,
)

LATENT_NOISE = 0.15
"""Largest noise on the latents in training, in standard deviations of the latents."""
PICTURES = 20_000
"""Pictures rendered for one run of a stage."""


def edge_loss(x_NCHW: Tensor, y_NCHW: Tensor) -> Tensor:
    """Mean absolute difference of the two pictures' finite differences, both directions."""
    gap_NCHW = x_NCHW - y_NCHW
    return gap_NCHW.diff(dim=2).abs().mean() + gap_NCHW.diff(dim=3).abs().mean()


def train_vae(out: Path, minutes: float, start: int = 0, batch: int = 8) -> None:
    """Trains for `minutes` on rendered pictures and saves to out/vae in float16.

    `start` 0 begins at random; 1, 2, ... continue from out/vae with other pictures and noise.
    """
    with torch.random.fork_rng():
        torch.manual_seed(102)
        vae = load_parts(out, ("vae",))["vae"] if start else architecture.vae()
    vae = vae.requires_grad_(True).train().to(memory_format=torch.channels_last)
    fit(vae, minutes, start, batch, decoder_only=False)
    save_scaled(vae, out)


def train_decoder(out: Path, minutes: float, start: int = 9, batch: int = 8) -> None:
    """Trains the decoder alone: the latents, on which the UNet was trained, do not change."""
    vae = load_parts(out, ("vae",))["vae"].to(memory_format=torch.channels_last)
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True).train()
    fit(vae, minutes, start, batch, decoder_only=True)
    replace_folder(vae.half(), out / "vae")


def fit(vae: Any, minutes: float, start: int, batch: int, decoder_only: bool) -> None:
    """Trains the parameters that require gradients, on pictures and noise of seed `start`."""
    rng = generator(101 + start)
    x_NCHW = render_scenes(PICTURES, seed=100_000 + start)[1]
    optim = torch.optim.AdamW(
        [w for w in vae.parameters() if w.requires_grad], lr=2e-3, betas=(0.9, 0.99)
    )
    peak, budget, step = 1e-3 if decoder_only else 2e-3, TimeBudget(minutes), 0
    while budget.progress < 1:
        for group in optim.param_groups:
            group["lr"] = lr_at(budget.progress, peak)
        x = to_float(x_NCHW[torch.randint(PICTURES, (batch,), generator=rng)]) * 2 - 1
        loss, scale = reconstruction_loss(vae, x, rng, decoder_only)
        optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optim.step()
        if step % 250 == 0:
            speed = step * batch / max(budget.spent, 1e-9)
            log(f"vae {step} loss {loss.item():.4f} std {scale:.3f} {speed:.0f}/s")
        step += 1


def reconstruction_loss(
    vae: Any, x_NCHW: Tensor, rng: Generator, decoder_only: bool
) -> tuple[Tensor, float]:
    """Error of decoding noisy latents, and the latents' standard deviation."""
    with torch.set_grad_enabled(not decoder_only):
        posterior = vae.encode(x_NCHW).latent_dist
    z = posterior.mean
    scale = z.detach().std()
    # A student's latents are slightly noisy; the decoder learns to ignore that.
    strength_N = torch.rand(len(x_NCHW), 1, 1, 1, generator=rng) * LATENT_NOISE
    y_NCHW = vae.decode(z + strength_N * scale * torch.randn(z.shape, generator=rng)).sample
    loss = (x_NCHW - y_NCHW).abs().mean() + edge_loss(x_NCHW, y_NCHW)
    loss = loss + 0.5 * (x_NCHW - y_NCHW).square().mean()
    if not decoder_only:
        # Latents of unit variance, and a posterior of a tenth of their standard deviation.
        unit = (z.square().mean() - 1).square()
        spread = (posterior.logvar - 2 * torch.log(0.1 * scale)).square().mean()
        loss = loss + 1e-3 * (unit + spread)
    return loss, scale.item()


@torch.no_grad()
def save_scaled(vae: Any, out: Path) -> None:
    """Sets the scaling factor that gives latents a unit standard deviation, and saves."""
    x_NCHW = to_float(render_scenes(2000, seed=99)[1])
    z = torch.cat([vae.encode(x * 2 - 1).latent_dist.mean for x in x_NCHW.split(250)])
    vae.register_to_config(scaling_factor=1 / z.std().item())
    log(f"vae latents: std {z.std():.4f}, mean by channel {z.mean(dim=(0, 2, 3)).tolist()}")
    replace_folder(vae.half(), out / "vae")

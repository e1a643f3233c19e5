"""Stage vae: an autoencoder whose decoder turns slightly grainy latents into clean pictures.

Legend: N pictures, C = 3, H = W = 64; z_NZhw latents with Z = 4, h = w = 16.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from distillkit_shapes import build

from .data import Clock, drawn, generator, load_parts, rate_at, replace_folder, say, unit

GRAIN = 0.15
"""Largest latent noise in training, in standard deviations of the latents."""
POOL = 20_000
"""Pictures drawn for one run of a stage."""


def edges_loss(x_NCHW: Tensor, y_NCHW: Tensor) -> Tensor:
    """Mean absolute difference of the two pictures' finite differences, both directions."""
    gap_NCHW = x_NCHW - y_NCHW
    return gap_NCHW.diff(dim=2).abs().mean() + gap_NCHW.diff(dim=3).abs().mean()


def train_vae(out: Path, minutes: float, start: int = 0, batch: int = 8) -> None:
    """Trains for `minutes` on drawn pictures and saves to out/vae in float16.

    `start` 0 begins at random; 1, 2, ... go on from out/vae with other pictures and noise.
    """
    with torch.random.fork_rng():
        torch.manual_seed(102)
        vae = load_parts(out, ("vae",))["vae"] if start else build.vae()
    vae = vae.requires_grad_(True).train().to(memory_format=torch.channels_last)
    fit(vae, minutes, start, batch, decoder_only=False)
    finish_vae(vae, out)


def train_decoder(out: Path, minutes: float, start: int = 9, batch: int = 8) -> None:
    """Goes on with the decoder alone: latents, and what is learnt of them, stay as they are."""
    vae = load_parts(out, ("vae",))["vae"].to(memory_format=torch.channels_last)
    for part in (vae.decoder, vae.post_quant_conv):
        part.requires_grad_(True).train()
    fit(vae, minutes, start, batch, decoder_only=True)
    replace_folder(vae.half(), out / "vae")


def fit(vae: Any, minutes: float, start: int, batch: int, decoder_only: bool) -> None:
    """Optimizes the parts that want gradients on pictures and noise of seed `start`."""
    source = generator(101 + start)
    pool = drawn(POOL, seed=100_000 + start)[1]
    optim = torch.optim.AdamW(
        [w for w in vae.parameters() if w.requires_grad], lr=2e-3, betas=(0.9, 0.99)
    )
    peak, clock, step = 1e-3 if decoder_only else 2e-3, Clock(minutes), 0
    while clock.progress < 1:
        for group in optim.param_groups:
            group["lr"] = rate_at(clock.progress, peak)
        x = unit(pool[torch.randint(POOL, (batch,), generator=source)]) * 2 - 1
        loss, scale = loss_of(vae, x, source, decoder_only)
        optim.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optim.step()
        if step % 250 == 0:
            rate = step * batch / max(clock.spent, 1e-9)
            say(f"vae {step} loss {loss.item():.4f} std {scale:.3f} {rate:.0f}/s")
        step += 1


def loss_of(vae: Any, x: Tensor, source: Generator, decoder_only: bool) -> tuple[Tensor, float]:
    """Error of decoding grainy latents, and the latents' standard deviation."""
    with torch.set_grad_enabled(not decoder_only):
        posterior = vae.encode(x).latent_dist
    z = posterior.mean
    scale = z.detach().std()
    grain_N = torch.rand(len(x), 1, 1, 1, generator=source) * GRAIN
    y = vae.decode(z + grain_N * scale * torch.randn(z.shape, generator=source)).sample
    loss = (x - y).abs().mean() + edges_loss(x, y) + 0.5 * (x - y).square().mean()
    if not decoder_only:
        keep = (z.square().mean() - 1).square()
        spread = (posterior.logvar - 2 * torch.log(0.1 * scale)).square().mean()
        loss = loss + 1e-3 * (keep + spread)
    return loss, scale.item()


@torch.no_grad()
def finish_vae(vae: Any, out: Path) -> None:
    """Sets the scale that gives latents a unit standard deviation, and saves."""
    x_NCHW = unit(drawn(2000, seed=99)[1])
    z = torch.cat([vae.encode(x * 2 - 1).latent_dist.mean for x in x_NCHW.split(250)])
    vae.register_to_config(scaling_factor=1 / z.std().item())
    say(f"vae latents: std {z.std():.4f}, mean by channel {z.mean(dim=(0, 2, 3)).tolist()}")
    replace_folder(vae.half(), out / "vae")

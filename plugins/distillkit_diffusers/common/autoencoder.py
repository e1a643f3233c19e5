"""Pictures to latents and back through an AutoencoderKL: z = (latent - shift) * scale.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor


def encode_images(vae: Any, images_B3HW: Tensor) -> Tensor:
    """Latents (B, C, H, W) of pictures in [0, 1], float32: the mode of the VAE's posterior."""
    shift, z_BCHW = _shift(vae), posterior_mode(vae, images_B3HW)
    return (z_BCHW - shift if shift else z_BCHW) * _scale(vae)


def decode(vae: Any, x_0_BCHW: Tensor) -> Tensor:
    """Pictures (B, 3, height, width) in [0, 1], float32; differentiable."""
    shift, z_BCHW = _shift(vae), x_0_BCHW / _scale(vae)
    return pictures(vae, z_BCHW + shift if shift else z_BCHW)


def posterior_mode(vae: Any, images_B3HW: Tensor) -> Tensor:
    """The VAE's own latents of pictures in [0, 1], float32: nothing is drawn, and pictures are
    encoded whole, since latents of tiles are others."""
    with _untiled(vae):
        posterior = vae.encode((2 * images_B3HW - 1).to(vae.device, vae.dtype)).latent_dist
    z_BCHW: Tensor = posterior.mode().float()
    return z_BCHW


def pictures(vae: Any, z_BCHW: Tensor) -> Tensor:
    """Pictures in [0, 1] of the VAE's own latents, float32; differentiable."""
    images_B3HW = vae.decode(z_BCHW.to(vae.device, vae.dtype), return_dict=False)[0]
    return (images_B3HW.float() / 2 + 0.5).clamp(0, 1)


def enable_tiling(vae: Any, pixels: int) -> None:
    """Work on one picture at a time, and decode it in overlapping tiles of half its side.

    `pixels`: a side of the pictures. diffusers' own tiles are as large as the pictures that the VAE
    was made for, which are then not cut.
    """
    vae.enable_slicing()
    vae.enable_tiling()
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    # Tiles overlap by a quarter, which has to be whole in cells: else seams shift the picture.
    vae.tile_latent_min_size = -(-pixels // factor // 8) * 4
    vae.tile_sample_min_size = vae.tile_latent_min_size * factor


@contextmanager
def _untiled(vae: Any) -> Iterator[None]:
    tiled = vae.use_tiling
    vae.use_tiling = False
    try:
        yield
    finally:
        vae.use_tiling = tiled


def _scale(vae: Any) -> float:
    return float(vae.config.scaling_factor)


def _shift(vae: Any) -> float:
    """Families before flow matching have none."""
    return float(vae.config.shift_factor or 0.0)

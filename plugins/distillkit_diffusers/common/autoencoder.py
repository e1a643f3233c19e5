"""Pictures to latents and back through an AutoencoderKL: z = (latent - shift) * scale.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

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
    """The VAE's own latents of pictures in [0, 1], float32: nothing is drawn."""
    posterior = vae.encode((2 * images_B3HW - 1).to(vae.device, vae.dtype)).latent_dist
    z_BCHW: Tensor = posterior.mode().float()
    return z_BCHW


def pictures(vae: Any, z_BCHW: Tensor) -> Tensor:
    """Pictures in [0, 1] of the VAE's own latents, float32; differentiable."""
    images_B3HW = vae.decode(z_BCHW.to(vae.device, vae.dtype), return_dict=False)[0]
    return (images_B3HW.float() / 2 + 0.5).clamp(0, 1)


def _scale(vae: Any) -> float:
    return float(vae.config.scaling_factor)


def _shift(vae: Any) -> float:
    """Families before flow matching have none."""
    return float(vae.config.shift_factor or 0.0)

"""A frozen FLUX.2 klein pipeline as a teacher.

Legend: B batch, C latent channels, H, W latent cells, L words, D units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from distillkit.values import Condition
from distillkit_diffusers.common import autoencoder
from distillkit_diffusers.flow.qwen import encode
from distillkit_diffusers.flow.teacher import FlowOptions, FlowTeacher
from distillkit_diffusers.flux2.backbone import TappedFlux2
from distillkit_diffusers.flux2.denoiser import Flux2Denoiser
from distillkit_diffusers.flux2.family import FLUX2

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser

PATCH = 2
"""Cells of the VAE a side of a token."""
TEXT_LAYERS = (9, 18, 27)
"""Layers of the text encoder whose outputs the network takes."""


@dataclass(frozen=True, kw_only=True)
class Flux2Options(FlowOptions):
    """The settings of a teacher beside its files; fields as in `Flux2TeacherConfig`."""

    resolution: int | None = None


class Flux2Teacher(FlowTeacher):
    """Fulfils `distillkit.contracts.Teacher`. Conditions are {"prompt": BLD}: the network attends
    to a text's padding too."""

    family = FLUX2
    options: Flux2Options
    # The stock pipeline adds no guidance to a distilled model.
    published_options = {"is_distilled": True}

    def denoise(self, module: Any) -> Denoiser:
        """The transformer as a denoiser."""
        return Flux2Denoiser(module, self.schedule)

    def tapped(self, taps: Sequence[int], gradient_checkpointing: bool) -> TappedFlux2:
        """The transformer's blocks up to the last tapped one."""
        return TappedFlux2(self.pipe.transformer, taps, gradient_checkpointing)

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt: three of Qwen3's layers, side by side."""
        with self.on_device("text_encoders"):
            states_BLSD, _ = encode(
                self.pipe, prompts, self.options.max_tokens, layers=TEXT_LAYERS, thinking=False
            )
        return Condition({"prompt": states_BLSD.flatten(2)})

    @torch.no_grad()
    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pictures in [0, 1], float32: the mode of the VAE's posterior in
        patches, normalised by the VAE's statistics."""
        with self.on_device("vae"):
            z_BCHW = pixel_unshuffle(autoencoder.posterior_mode(self.pipe.vae, images_B3HW), PATCH)
            mean_1C11, std_1C11 = self._statistics(z_BCHW)
        return (z_BCHW - mean_1C11) / std_1C11

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1], float32; differentiable."""
        with self.on_device("vae"):
            mean_1C11, std_1C11 = self._statistics(x_0_BCHW)
            z_BCHW = pixel_shuffle(x_0_BCHW * std_1C11 + mean_1C11, PATCH)
            return autoencoder.pictures(self.pipe.vae, z_BCHW)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the VAE's patches, channel by channel."""
        vae = self.pipe.vae
        std_C = (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
        mean_C, std_C = (s.to(like.device, like.dtype) for s in (vae.bn.running_mean, std_C))
        return mean_C.view(1, -1, 1, 1), std_C.view(1, -1, 1, 1)

    def _latents(self) -> tuple[tuple[int, int, int], int]:
        factor = PATCH * int(self.pipe.vae_scale_factor)
        side = (self.options.resolution or self.pipe.vae.config.sample_size) // factor
        return (int(self.pipe.transformer.config.in_channels), side, side), factor

    def _mu(self, steps: int) -> float:
        """A function of the tokens and the steps (diffusers' formula)."""
        from diffusers.pipelines.flux2 import pipeline_flux2_klein as stock

        _, height, width = self.latent_shape
        return float(stock.compute_empirical_mu(height * width, steps))

    def _is_guided(self, sigma: float) -> bool:
        return super()._is_guided(sigma) and not self.pipe.config.is_distilled

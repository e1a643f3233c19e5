"""A frozen Stable Diffusion 3 pipeline as a teacher.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D context units, P pooled units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from distillkit.values import Condition
from distillkit_diffusers.flow.teacher import FlowTeacher, euler_scheduler
from distillkit_diffusers.sd3.backbone import TappedMMDiT
from distillkit_diffusers.sd3.denoiser import MMDiTDenoiser
from distillkit_diffusers.sd3.family import SD3

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser


class SD3Teacher(FlowTeacher):
    """Fulfils `distillkit.contracts.Teacher`. Conditions are {"prompt": BLD, "pooled": BP}."""

    family = SD3

    def denoise(self, module: Any) -> Denoiser:
        """An MMDiT as a denoiser."""
        return MMDiTDenoiser(module, self.schedule)

    def tapped(self, taps: Sequence[int], gradient_checkpointing: bool) -> TappedMMDiT:
        """The MMDiT's blocks up to the last tapped one."""
        return TappedMMDiT(self.pipe.transformer, taps, gradient_checkpointing)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, from both CLIPs and, where there is one, T5."""
        with self.on_device("text_encoders"):
            prompt_BLD, _, pooled_BP, _ = self.pipe.encode_prompt(
                prompt=list(prompts),
                prompt_2=None,
                prompt_3=None,
                device=self.pipe.text_encoder.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.options.max_tokens,
            )
        return Condition({"prompt": prompt_BLD, "pooled": pooled_BP})

    def size_in_call(self) -> dict[str, int]:
        """Nothing: the stock pipeline reads it in the transformer's config."""
        return {}

    def _latents(self) -> tuple[tuple[int, int, int], int]:
        config = self.pipe.transformer.config
        side = int(config.sample_size)
        return (int(config.in_channels), side, side), int(self.pipe.vae_scale_factor)

    def _shift(self) -> float:
        side = self.latent_shape[1] // self.pipe.transformer.config.patch_size
        return fixed_shift(self.pipe.scheduler.config, side**2)

    def _noise_levels(self) -> list[float]:
        if self.options.sigmas is not None:
            return super()._noise_levels()
        scheduler = euler_scheduler(self.pipe.scheduler.config, self.shift)
        scheduler.set_timesteps(self.options.steps)  # the stock pipeline leaves it to the scheduler
        return [float(sigma) for sigma in scheduler.sigmas]


def fixed_shift(config: Any, tokens: int) -> float:
    """The shift of a scheduler's config for pictures of so many tokens.

    Dynamic shifting is exp(mu), mu linear in the number of tokens (diffusers' `calculate_shift`).
    """
    if not config.get("use_dynamic_shifting"):
        return float(config["shift"])
    from diffusers.pipelines.stable_diffusion_3 import pipeline_stable_diffusion_3 as stock

    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    return math.exp(stock.calculate_shift(tokens, *(config[name] for name in names)))

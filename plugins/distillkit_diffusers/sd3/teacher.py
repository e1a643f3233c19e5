"""A frozen Stable Diffusion 3 pipeline as a teacher.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D context units, P pooled units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from distillkit.values import Condition
from distillkit_diffusers.flow.teacher import FlowTeacher
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

    def _stock_sigmas(self, steps: int) -> None:
        """None: the stock pipeline leaves the spacing to its scheduler."""

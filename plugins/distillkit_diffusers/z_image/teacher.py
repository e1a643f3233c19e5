"""A frozen Z-Image pipeline as a teacher.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from distillkit.values import Condition
from distillkit_diffusers.flow.qwen import encode
from distillkit_diffusers.flow.teacher import FlowOptions, FlowTeacher
from distillkit_diffusers.z_image.backbone import TappedZImage
from distillkit_diffusers.z_image.denoiser import ZImageDenoiser
from distillkit_diffusers.z_image.family import Z_IMAGE

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser


@dataclass(frozen=True, kw_only=True)
class ZImageOptions(FlowOptions):
    """The settings of a teacher beside its files; fields as in `ZImageTeacherConfig`."""

    resolution: int | None = None
    cfg_normalization: float = 0.0
    cfg_truncation: float = 1.0


class ZImageTeacher(FlowTeacher):
    """Fulfils `distillkit.contracts.Teacher`. Conditions are {"prompt": BLD, "prompt_mask": BL}."""

    family = Z_IMAGE
    options: ZImageOptions

    def denoise(self, module: Any) -> Denoiser:
        """The transformer as a denoiser."""
        return ZImageDenoiser(module, self.schedule)

    def tapped(self, taps: Sequence[int], gradient_checkpointing: bool) -> TappedZImage:
        """The transformer's layers up to the last tapped one."""
        return TappedZImage(self.pipe.transformer, taps, gradient_checkpointing)

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt: Qwen3's last hidden states but one.

        The stock pipeline drops the padding, which is zeros here.
        """
        with self.on_device("text_encoders"):
            states_BLSD, mask_BL = encode(
                self.pipe, prompts, self.options.max_tokens, layers=(-2,), thinking=True
            )
        prompt_BLD = states_BLSD.squeeze(2).masked_fill(~mask_BL[:, :, None], 0)
        return Condition({"prompt": prompt_BLD, "prompt_mask": mask_BL})

    def _latents(self) -> tuple[tuple[int, int, int], int]:
        factor = int(self.pipe.vae_scale_factor)
        side = (self.options.resolution or self.pipe.vae.config.sample_size) // factor
        return (int(self.pipe.transformer.config.in_channels), side, side), factor

    def _is_guided(self, sigma: float) -> bool:
        return self.options.guidance > 0 and 1 - sigma <= self.options.cfg_truncation

    def _guided(self, cond_BCHW: Tensor, null_BCHW: Tensor) -> Tensor:
        guided_BCHW = cond_BCHW + self.options.guidance * (cond_BCHW - null_BCHW)
        most = self.options.cfg_normalization
        if not most:
            return guided_BCHW
        norms = (v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for v in (cond_BCHW, guided_BCHW))
        cond_B111, guided_B111 = norms
        return guided_BCHW * (most * cond_B111 / guided_B111).clamp(max=1)

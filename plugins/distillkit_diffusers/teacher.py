"""A frozen Stable Diffusion XL pipeline as a teacher.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D context units, P pooled units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from distillkit.noising import NoiseSchedule
from distillkit.values import Condition
from distillkit_diffusers.denoiser import UNetDenoiser

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser
    from distillkit_diffusers.solvers import Solver
    from distillkit_diffusers.words import Offload


@dataclass
class SDXLTeacher:
    """Fulfils `distillkit.contracts.Teacher`. Conditions are {"prompt": BLD, "pooled": BP}."""

    pipe: Any
    """StableDiffusionXLPipeline; its scheduler keeps the model's own config."""
    solver: Solver
    guidance: float = 0.0
    source: str | None = None
    """Where the pipeline's own UNet lies, if a LoRA or another UNet changed it here."""
    variant: str | None = None
    """Of the weight files there."""
    offload: tuple[Offload, ...] = ()
    """Networks that are on the device only while they work."""
    vae_tiling: bool = False
    """Whether pictures are decoded one by one, in tiles."""

    def __post_init__(self) -> None:
        pipe = self.pipe
        for module in self.modules():
            module.eval().requires_grad_(False)
        config = pipe.unet.config
        self.latent_shape = (int(config.in_channels), config.sample_size, config.sample_size)
        self.schedule = NoiseSchedule(pipe.scheduler.alphas_cumprod.float())
        self.vae_factor = int(pipe.vae_scale_factor)
        prediction = pipe.scheduler.config.prediction_type
        self.device: Any = "cpu"
        if self.vae_tiling:
            pipe.vae.enable_slicing()
            pipe.vae.enable_tiling()
            # diffusers' tiles are as large as the pictures that the VAE was made for.
            pipe.vae.tile_latent_min_size = max(1, pipe.unet.config.sample_size // 2)
            pipe.vae.tile_sample_min_size = pipe.vae.tile_latent_min_size * self.vae_factor
        # No textual inversion is loaded; to look for one takes 4 ms a batch of 16 prompts.
        pipe.maybe_convert_prompt = _unchanged
        self.denoiser: Denoiser = UNetDenoiser(pipe.unet, prediction, self.vae_factor)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, from both text encoders."""
        with self._brought("text_encoders"):
            prompt_BLD, _, pooled_BP, _ = self.pipe.encode_prompt(
                list(prompts),
                device=self.pipe.text_encoder.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return Condition({"prompt": prompt_BLD, "pooled": pooled_BP})

    def null(self, count: int) -> Condition:
        """SDXL's own null condition: zeros."""
        pipe = self.pipe
        tokens, units = pipe.tokenizer.model_max_length, pipe.unet.config.cross_attention_dim
        pooled = pipe.text_encoder_2.config.projection_dim
        like = {"device": pipe.text_encoder.device, "dtype": pipe.text_encoder.dtype}
        return Condition(
            {
                "prompt": torch.zeros(count, tokens, units, **like),
                "pooled": torch.zeros(count, pooled, **like),
            }
        )

    @torch.no_grad()
    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Sequence[Generator]) -> Tensor:
        """x_0 from x_T by the solver, guided where guidance > 1.

        Deterministic but for LCM, which draws picture b's noise from `generators[b]` alone.
        """
        count = len(x_T_BCHW)
        if self.guidance <= 1:
            return self.solver.run(x_T_BCHW, lambda x, t_B: self.denoiser(x, t_B, cond), generators)
        both = Condition.join([self.null(count).to(x_T_BCHW.device), cond.to(x_T_BCHW.device)])

        def guided(x_BCHW: Tensor, t_B: Tensor) -> Tensor:
            output = self.denoiser(torch.cat([x_BCHW, x_BCHW]), torch.cat([t_B, t_B]), both)
            null_BCHW, told_BCHW = output.chunk(2)
            return null_BCHW + self.guidance * (told_BCHW - null_BCHW)

        return self.solver.run(x_T_BCHW, guided, generators)

    @torch.no_grad()
    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1], float32."""
        vae = self.pipe.vae
        with self._brought("vae"):
            z_BCHW = (x_0_BCHW / vae.config.scaling_factor).to(vae.device, vae.dtype)
            pictures_B3HW = vae.decode(z_BCHW, return_dict=False)[0]
        return (pictures_B3HW.float() / 2 + 0.5).clamp(0, 1)

    def to(self, device: Any) -> None:
        """Move every network but those that wait."""
        self.device = device
        offloaded = self.offloaded()
        for module in self.modules():
            if not any(module is other for other in offloaded):
                module.to(device)

    def offloaded(self) -> Sequence[nn.Module]:
        """Networks that wait in main memory until they work."""
        return [module for name in self.offload for module in self._named(name)]

    def _named(self, name: Offload) -> list[nn.Module]:
        pipe = self.pipe
        return [pipe.vae] if name == "vae" else [pipe.text_encoder, pipe.text_encoder_2]

    @contextmanager
    def _brought(self, name: Offload) -> Iterator[None]:
        """Inside, the networks of that name are on the device."""
        waiting = [(m, next(m.parameters()).device) for m in self._named(name)]
        waiting = waiting if name in self.offload else []
        for module, _ in waiting:
            module.to(self.device)
        try:
            yield
        finally:
            for module, place in waiting:
                module.to(place)

    def modules(self) -> Sequence[nn.Module]:
        """UNet, both text encoders, VAE."""
        pipe = self.pipe
        return [pipe.unet, pipe.text_encoder, pipe.text_encoder_2, pipe.vae]


def _unchanged(prompt: Any, tokenizer: Any) -> Any:
    return prompt

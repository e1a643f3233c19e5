"""A frozen Stable Diffusion 3 pipeline as a teacher.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D context units, P pooled units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from distillkit.errors import UserError
from distillkit.noising import NoiseSchedule
from distillkit.values import Condition, sent
from distillkit_diffusers.sd3.denoiser import TIMES, MMDiTDenoiser

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser
    from distillkit_diffusers.choices import OffloadName


@dataclass(frozen=True, kw_only=True)
class SD3Options:
    """The settings of a teacher beside its files; fields as in `SD3TeacherConfig`."""

    steps: int = 28
    sigmas: tuple[float, ...] | None = None
    guidance: float = 1.0
    max_tokens: int = 256
    offload: tuple[OffloadName, ...] = ()
    vae_tiling: bool = False

    @classmethod
    def from_config(cls, config: object) -> SD3Options:
        """The config's fields of the same names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


class SD3Teacher:
    """Fulfils `distillkit.contracts.Teacher`. Conditions are {"prompt": BLD, "pooled": BP}."""

    def __init__(
        self, pipe: Any, options: SD3Options | None = None, source: str | None = None
    ) -> None:
        """`pipe`: a StableDiffusion3Pipeline with its own FlowMatchEulerDiscreteScheduler.

        `source`: where the pipeline's own transformer is, if a LoRA or another one replaced it.
        """
        self.pipe = pipe
        self.source = source
        self.options = options = options or SD3Options()
        self.device: Any = "cpu"
        for module in self.modules():
            module.eval().requires_grad_(False)
        config = pipe.transformer.config
        side = int(config.sample_size)
        self.latent_shape = (int(config.in_channels), side, side)
        self.vae_factor = int(pipe.vae_scale_factor)
        self.image_size = (side * self.vae_factor, side * self.vae_factor)
        self.shift = fixed_shift(pipe.scheduler.config, (side // config.patch_size) ** 2)
        self.schedule = NoiseSchedule.flow_matching(self.shift)
        if options.vae_tiling:
            pipe.vae.enable_slicing()
            pipe.vae.enable_tiling()
        self.denoiser: Denoiser = MMDiTDenoiser(pipe.transformer, self.schedule)
        self.sigmas = self._noise_levels()
        """Noise levels of the sampler, from 1 to 0, as the stock scheduler spaces them."""
        self._null: Condition | None = None

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, from both CLIPs and, where there is one, T5."""
        with self._on_device("text_encoders"):
            prompt_BLD, _, pooled_BP, _ = self.pipe.encode_prompt(
                prompt=list(prompts),
                prompt_2=None,
                prompt_3=None,
                device=self.pipe.text_encoder.device,
                do_classifier_free_guidance=False,
                max_sequence_length=self.options.max_tokens,
            )
        return Condition({"prompt": prompt_BLD, "pooled": pooled_BP})

    def null(self, count: int) -> Condition:
        """The family's own: the encoders' output for the empty text, which is worked out once."""
        device = self.pipe.text_encoder.device
        if self._null is None:
            self._null = self.encode([""])
        one = self._null.to(device)
        return Condition({n: t.repeat(count, *[1] * (t.ndim - 1)) for n, t in one.tensors.items()})

    @torch.no_grad()
    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Sequence[Generator]) -> Tensor:
        """x_0 from x_T by Euler steps along the flow, which draw nothing; with classifier-free
        guidance where its scale is above 1."""
        guided = self.options.guidance > 1
        if guided:
            null = self.null(len(x_T_BCHW)).to(x_T_BCHW.device)
            cond = Condition.join([null, cond.to(x_T_BCHW.device)])
        x_BCHW = x_T_BCHW
        for sigma, after in pairwise(self.sigmas):
            t_B = sent(self.schedule.level_of(torch.tensor([sigma])), x_BCHW.device)
            v_BCHW = self._flow(x_BCHW, t_B.expand(len(x_BCHW)), cond, guided)
            x_BCHW = x_BCHW + (after - sigma) * v_BCHW
        return x_BCHW

    def _flow(self, x_BCHW: Tensor, t_B: Tensor, cond: Condition, guided: bool) -> Tensor:
        if not guided:
            return self.denoiser(x_BCHW, t_B, cond)
        output = self.denoiser(torch.cat([x_BCHW, x_BCHW]), torch.cat([t_B, t_B]), cond)
        uncond_BCHW, cond_BCHW = output.chunk(2)
        return uncond_BCHW + self.options.guidance * (cond_BCHW - uncond_BCHW)

    def _noise_levels(self) -> list[float]:
        scheduler = euler_scheduler(self.pipe.scheduler.config, self.shift)
        own = self.options.sigmas
        if own is not None:
            scheduler.set_timesteps(sigmas=list(own))
        else:
            scheduler.set_timesteps(self.options.steps)
        return [float(sigma) for sigma in scheduler.sigmas]

    @torch.no_grad()
    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        """Latents (B, C, H, W) of pictures in [0, 1], float32: the mode of the VAE's posterior."""
        vae = self.pipe.vae
        with self._on_device("vae"):
            posterior = vae.encode((2 * images_B3HW - 1).to(vae.device, vae.dtype)).latent_dist
        shift = vae.config.shift_factor or 0.0
        latents_BCHW: Tensor = (posterior.mode().float() - shift) * vae.config.scaling_factor
        return latents_BCHW

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        """Pictures (B, 3, height, width) in [0, 1], float32; differentiable."""
        vae = self.pipe.vae
        with self._on_device("vae"):
            z_BCHW = x_0_BCHW / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
            images_B3HW = vae.decode(z_BCHW.to(vae.device, vae.dtype), return_dict=False)[0]
        return (images_B3HW.float() / 2 + 0.5).clamp(0, 1)

    def to(self, device: Any) -> None:
        """Move every network but the offloaded ones."""
        self.device = device
        offloaded = self.offloaded()
        for module in self.modules():
            if not any(module is other for other in offloaded):
                module.to(device)

    def offloaded(self) -> Sequence[nn.Module]:
        """Networks that are in main memory, and on the device only during their calls."""
        return [module for name in self.options.offload for module in self._named(name)]

    def modules(self) -> Sequence[nn.Module]:
        """Transformer, text encoders, VAE."""
        return [self.pipe.transformer, *self._named("text_encoders"), self.pipe.vae]

    def _named(self, name: OffloadName) -> list[nn.Module]:
        pipe = self.pipe
        if name == "vae":
            return [pipe.vae]
        encoders = (pipe.text_encoder, pipe.text_encoder_2, pipe.text_encoder_3)
        return [encoder for encoder in encoders if encoder is not None]

    @contextmanager
    def _on_device(self, name: OffloadName) -> Iterator[None]:
        """Inside, the networks of that name are on the device even if they are offloaded."""
        modules = self._named(name) if name in self.options.offload else []
        homes = [(module, next(module.parameters()).device) for module in modules]
        for module in modules:
            module.to(self.device)
        try:
            yield
        finally:
            for module, home in homes:
                module.to(home)


def fixed_shift(config: Any, tokens: int) -> float:
    """The shift of a scheduler's config for pictures of so many tokens.

    Dynamic shifting is exp(mu), mu linear in the number of tokens (diffusers' `calculate_shift`).
    """
    if not config.get("use_dynamic_shifting"):
        return float(config["shift"])
    from diffusers.pipelines.stable_diffusion_3 import pipeline_stable_diffusion_3 as stock

    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    return math.exp(stock.calculate_shift(tokens, *(config[name] for name in names)))


def euler_scheduler(config: Any, shift: float, stochastic: bool = False) -> Any:
    """FlowMatchEulerDiscreteScheduler at a fixed shift, with no other spacing.

    `stochastic`: x_0-hat gets fresh noise between steps, where the plain one steps along the flow.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    levels = int(config.get("num_train_timesteps", TIMES))
    return FlowMatchEulerDiscreteScheduler(levels, shift=shift, stochastic_sampling=stochastic)


def require_sd3(teacher: object, who: str) -> SD3Teacher:
    """The teacher, if it is of this family; else a `UserError` that names `who` needs it."""
    if isinstance(teacher, SD3Teacher):
        return teacher
    raise UserError(
        f"{who} needs a teacher of the Stable Diffusion 3 family (sd3), and this recipe's teacher "
        f"is a {type(teacher).__name__}"
    )

"""A frozen pipeline whose transformer predicts a flow, as a teacher.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Generator, Tensor, nn

from distillkit.errors import UserError
from distillkit.noising import NoiseSchedule
from distillkit.values import Condition, sent
from distillkit_diffusers.common import autoencoder
from distillkit_diffusers.common.offload import PipelineNetworks
from distillkit_diffusers.flow.scheduler import fixed_shift, linear_mu, own_scheduler
from distillkit_diffusers.lora_twin import LoRATwin

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser
    from distillkit_diffusers.choices import OffloadName
    from distillkit_diffusers.flow.dit import TappedBlocks
    from distillkit_diffusers.flow.family import Family

TIMES = 1000
"""Noise levels of every family's schedule."""
SHIFT_OF = 4
"""Where a dynamic shift depends on the number of steps, the schedule's is that of so many: the
family's published students take four."""


@dataclass(frozen=True, kw_only=True)
class FlowOptions:
    """The settings of a teacher beside its files; fields as in `FlowTeacherConfig`."""

    model: str | None = None
    """What the pipeline was loaded from, for pages about what a student publishes."""
    steps: int = 28
    sigmas: tuple[float, ...] | None = None
    guidance: float = 0.0
    max_tokens: int = 512
    offload: tuple[OffloadName, ...] = ()
    vae_tiling: bool = False

    @classmethod
    def from_config(cls, config: object) -> Self:
        """The config's fields of the same names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})


class FlowTeacher(PipelineNetworks):
    """Fulfils `distillkit.contracts.Teacher`. Families say how texts are encoded and how their
    network is called; latents are maps of an AutoencoderKL unless they say otherwise."""

    family: ClassVar[Family]
    published_options: ClassVar[dict[str, Any]] = {}
    """What the published pipeline is made with beside its parts."""

    def __init__(self, pipe: Any, options: FlowOptions, source: str | None = None) -> None:
        """`pipe`: a pipeline with its own FlowMatchEulerDiscreteScheduler.

        `source`: where the pipeline's own transformer is, if a LoRA or another one replaced it.
        """
        self.pipe, self.source = pipe, source
        self.options, self.offload = options, options.offload
        for module in self.modules():
            module.eval().requires_grad_(False)
        self.latent_shape, self.vae_factor = self._latents()
        height, width = self.latent_shape[1:]
        self.image_size = (height * self.vae_factor, width * self.vae_factor)
        self.shift = fixed_shift(pipe.scheduler.config, self._mu_if_dynamic(SHIFT_OF))
        self.schedule = NoiseSchedule.flow_matching(self.shift)
        if options.vae_tiling:
            autoencoder.enable_tiling(pipe.vae, max(self.image_size))
        self.denoiser: Denoiser = self.denoise(pipe.transformer)
        self.sigmas = self._noise_levels()
        """Noise levels of the sampler, from 1 to 0, as the stock pipeline spaces them."""

    # ---- what a family says

    def denoise(self, module: Any) -> Denoiser:
        """The transformer, or a wrapper around one, as a denoiser."""
        raise NotImplementedError

    def tapped(self, taps: Sequence[int], gradient_checkpointing: bool) -> TappedBlocks:
        """The transformer's blocks up to the last tapped one."""
        raise NotImplementedError

    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt."""
        raise NotImplementedError

    def size_in_call(self) -> dict[str, int]:
        """What the stock pipeline has to be told of the pictures' size: it knows 1024 alone."""
        height, width = self.image_size
        return {} if height == width == 1024 else {"height": height, "width": width}

    def _latents(self) -> tuple[tuple[int, int, int], int]:
        """Shape of the latents (C, H, W), and pixels a cell."""
        raise NotImplementedError

    def _mu(self, steps: int) -> float:
        """mu of dynamic shifting, as the stock pipeline works it out for so many steps."""
        _, height, width = self.latent_shape
        patch = self.family.blocks(self.pipe.transformer.config).patch
        return linear_mu(self.pipe.scheduler.config, (height // patch) * (width // patch))

    def _stock_sigmas(self, steps: int) -> Sequence[float] | None:
        """What the stock pipeline hands its scheduler: evenly from 1 to 1 / steps. None leaves the
        spacing to the scheduler."""
        return [float(sigma) for sigma in torch.linspace(1, 1 / steps, steps)]

    def _is_guided(self, sigma: float) -> bool:
        """Whether the null condition is run at that noise level."""
        return self.options.guidance > 1

    def _guided(self, cond_BCHW: Tensor, null_BCHW: Tensor) -> Tensor:
        """Classifier-free guidance, as the family does it."""
        return null_BCHW + self.options.guidance * (cond_BCHW - null_BCHW)

    # ---- what they share

    def _mu_if_dynamic(self, steps: int) -> float | None:
        return self._mu(steps) if self.pipe.scheduler.config.use_dynamic_shifting else None

    def _noise_levels(self) -> list[float]:
        """Of the sampler, as the pipeline's own scheduler spaces them."""
        scheduler, own = own_scheduler(self.pipe.scheduler.config), self.options.sigmas
        steps = self.options.steps if own is None else len(own)
        sigmas = self._stock_sigmas(steps) if own is None else own
        spaced = {"num_inference_steps": steps} if sigmas is None else {"sigmas": list(sigmas)}
        scheduler.set_timesteps(**spaced, mu=self._mu_if_dynamic(steps))
        return [float(sigma) for sigma in scheduler.sigmas]

    def call_settings(self) -> dict[str, int]:
        """What a call of the stock pipeline has to be told to draw as the teacher's networks are
        run here: the pictures' size and the text's tokens, where they are not its defaults."""
        own, name = signature(type(self.pipe).__call__).parameters, "max_sequence_length"
        tokens = self.options.max_tokens
        return self.size_in_call() | ({} if own[name].default == tokens else {name: tokens})

    def parts_left_out(self) -> list[str]:
        """Parts of the pipeline that the teacher is run without, such as T5; not those that the
        stock pipeline adds only where it is told to."""
        optional = type(self.pipe)._optional_components
        parts = self.pipe.components.items()
        return [name for name, part in parts if part is None and name not in optional]

    def null(self, count: int) -> Condition:
        """The family's own: the encoders' output for the empty text, which is worked out once."""
        return self.encoded_null(count)

    @torch.no_grad()
    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Sequence[Generator]) -> Tensor:
        """x_0 from x_T by Euler steps along the flow, which draw nothing; with classifier-free
        guidance where the family's scale asks for it.

        Where the pipeline's scheduler is stochastic, x_0-hat gets fresh noise between steps: for
        picture b from `generators[b]`.
        """
        cond, x_BCHW = cond.to(x_T_BCHW.device), x_T_BCHW
        both = cond
        if self._is_guided(1.0):
            both = Condition.join([self.null(len(x_BCHW)).to(x_BCHW.device), cond])
        for sigma, after in pairwise(self.sigmas):
            t_B = sent(self.schedule.level_of(torch.tensor([sigma])), x_BCHW.device)
            t_B = t_B.expand(len(x_BCHW))
            if self._is_guided(sigma):
                output = self.denoiser(torch.cat([x_BCHW, x_BCHW]), torch.cat([t_B, t_B]), both)
                null_BCHW, cond_BCHW = output.chunk(2)
                v_BCHW = self._guided(cond_BCHW, null_BCHW)
            else:
                v_BCHW = self.denoiser(x_BCHW, t_B, cond)
            if self.pipe.scheduler.config.stochastic_sampling and after > 0:
                noise_BCHW = _noise_like(x_BCHW, generators)
                x_BCHW = (1 - after) * (x_BCHW - sigma * v_BCHW) + after * noise_BCHW
            else:
                x_BCHW = x_BCHW + (after - sigma) * v_BCHW
        return x_BCHW

    def adapted(self, rank: int) -> Denoiser:
        """A denoiser that trains a LoRA beside the transformer's own frozen weights."""
        return self.denoise(LoRATwin(self.denoiser.module, rank, self.family.lora_targets))

    def denoisers(self) -> list[nn.Module]:
        """The transformer."""
        return [self.pipe.transformer]


def _noise_like(x_BCHW: Tensor, generators: Sequence[Generator]) -> Tensor:
    """A row of each generator, which is on the CPU."""
    rows = [torch.randn(x_BCHW.shape[1:], generator=generator) for generator in generators]
    return sent(torch.stack(rows), x_BCHW.device).to(x_BCHW.dtype)


def network_sigma(schedule: NoiseSchedule, t_B: Tensor) -> Tensor:
    """The noise level that the network is told at t, 0 to 1, float32 (B,)."""
    _, sigma_B111 = schedule.alpha_sigma(t_B)
    return sigma_B111.flatten()


def require_flow(teacher: object, who: str, type_: str | None = None) -> FlowTeacher:
    """The teacher, if it is of a family with a transformer, and of the family `type_` where one is
    given; else a `UserError` that names `who` needs it."""
    if isinstance(teacher, FlowTeacher) and type_ in (None, teacher.family.type):
        return teacher
    wanted = "sd3, z-image, flux2" if type_ is None else type_
    raise UserError(
        f"{who} needs a teacher of type {wanted}, and this recipe's teacher is a "
        f"{type(teacher).__name__}"
    )

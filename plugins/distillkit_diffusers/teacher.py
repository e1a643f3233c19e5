"""A frozen Stable Diffusion XL pipeline as a teacher, and how it is loaded.

Legend: B batch, C latent channels, H, W latent cells, L tokens, D context units, P pooled units.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from distillkit.errors import UserError
from distillkit.noising import NoiseSchedule
from distillkit.values import Condition
from distillkit_diffusers.choices import LORA_TARGETS
from distillkit_diffusers.common import autoencoder
from distillkit_diffusers.common.offload import PipelineNetworks
from distillkit_diffusers.denoiser import UNetDenoiser
from distillkit_diffusers.io.loading import load_pipeline, load_unet
from distillkit_diffusers.lora_twin import LoRATwin
from distillkit_diffusers.solvers import make_solver
from distillkit_diffusers.teacher_options import TeacherOptions

if TYPE_CHECKING:
    from distillkit.contracts import Denoiser
    from distillkit_diffusers.choices import DType


class SDXLTeacher(PipelineNetworks):
    """Fulfils `distillkit.contracts.Teacher`. Conditions are {"prompt": BLD, "pooled": BP}."""

    def __init__(
        self,
        pipe: Any,
        options: TeacherOptions | None = None,
        source: str | None = None,
        variant: str | None = None,
        model: str | None = None,
    ) -> None:
        """`pipe`: a StableDiffusionXLPipeline, whose scheduler keeps the model's own config.

        `source`: where the pipeline's own UNet is, if a LoRA or another UNet replaced it here;
        `variant`: of the weight files there. `model`: what the pipeline was loaded from, as the
        recipe names it.
        """
        self.pipe = pipe
        self.options = options = options or TeacherOptions()
        self.source, self.variant, self.model = source, variant, model
        self.offload = options.offload
        if pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
            pipe.vae.to(torch.float32)  # SDXL's own VAE overflows in float16
        if options.prediction:
            pipe.scheduler.register_to_config(prediction_type=options.prediction)
        for module in self.modules():
            module.eval().requires_grad_(False)
        unet_config, schedule = pipe.unet.config, pipe.scheduler.config
        side = unet_config.sample_size
        self.latent_shape = (int(unet_config.in_channels), side, side)
        self.schedule = NoiseSchedule(pipe.scheduler.alphas_cumprod.float())
        self.vae_factor = int(pipe.vae_scale_factor)
        self.image_size = (side * self.vae_factor, side * self.vae_factor)
        self.solver = make_solver(
            options.solver,
            schedule,
            options.steps,
            options.spacing,
            options.timesteps,
            options.timestep_shift,
            options.eta,
        )
        if options.vae_tiling:
            autoencoder.enable_tiling(pipe.vae, side * self.vae_factor)
        # No textual inversion is loaded; to look for one takes 4 ms a batch of 16 prompts.
        pipe.maybe_convert_prompt = _unchanged
        self.denoiser: Denoiser = UNetDenoiser(pipe.unet, schedule.prediction_type, self.vae_factor)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The condition of each prompt, from both text encoders."""
        with self.on_device("text_encoders"):
            prompt_BLD, _, pooled_BP, _ = self.pipe.encode_prompt(
                list(prompts),
                device=self.pipe.text_encoder.device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
        return Condition({"prompt": prompt_BLD, "pooled": pooled_BP})

    def null(self, count: int) -> Condition:
        """SDXL's own null condition, zeros; or the encoded empty text, where the model's pipeline
        says so (`force_zeros_for_empty_prompt`)."""
        pipe = self.pipe
        if not pipe.config.force_zeros_for_empty_prompt:
            return self.encoded_null(count)
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
        """x_0 from x_T by the solver, with classifier-free guidance where its scale is above 1.

        Stochastic solvers draw picture b's noise from `generators[b]` alone.
        """
        guidance = self.options.guidance
        if guidance <= 1:
            return self.solver.run(x_T_BCHW, lambda x, t_B: self.denoiser(x, t_B, cond), generators)
        null = self.null(len(x_T_BCHW)).to(x_T_BCHW.device)
        both = Condition.join([null, cond.to(x_T_BCHW.device)])

        def guided(x_BCHW: Tensor, t_B: Tensor) -> Tensor:
            output = self.denoiser(torch.cat([x_BCHW, x_BCHW]), torch.cat([t_B, t_B]), both)
            uncond_BCHW, cond_BCHW = output.chunk(2)
            return uncond_BCHW + guidance * (cond_BCHW - uncond_BCHW)

        return self.solver.run(x_T_BCHW, guided, generators)

    def adapted(self, rank: int) -> Denoiser:
        """A denoiser that trains a LoRA beside the UNet's own frozen weights."""
        module = LoRATwin(self.denoiser.module, rank, LORA_TARGETS)
        return UNetDenoiser(module, self.denoiser.prediction, self.vae_factor)

    def denoisers(self) -> list[Any]:
        """The UNet."""
        return [self.pipe.unet]


def load_teacher(
    model: str | Path,
    options: TeacherOptions | None = None,
    *,
    dtype: DType = "float32",
    variant: str | None = None,
    unet: str | None = None,
    lora: str | None = None,
    lora_strength: float = 1.0,
    vae: str | None = None,
    config: str | None = None,
) -> SDXLTeacher:
    """A teacher from a folder, a single file or a hub id; arguments as in `SDXLTeacherConfig`.

    A plugin that ships its teacher calls `load_teacher(FOLDER, TeacherOptions(steps=...))`. Raises
    `UserError` for files that are missing or of the wrong kind.
    """
    pipe, path = load_pipeline(
        str(model),
        getattr(torch, dtype),
        variant=variant,
        unet=unet,
        lora=lora,
        lora_strength=lora_strength,
        vae=vae,
        config=config,
    )
    source = str(path) if unet or lora else None
    return SDXLTeacher(pipe, options, source, variant, str(model))


def require_sdxl(teacher: object, who: str) -> SDXLTeacher:
    """The teacher, if it is of this family; else a `UserError` that names `who` needs it."""
    if isinstance(teacher, SDXLTeacher):
        return teacher
    raise UserError(
        f"{who} needs a teacher of the SDXL family (sdxl, shapes), and this recipe's teacher is "
        f"a {type(teacher).__name__}"
    )


def load_base_unet(teacher: SDXLTeacher) -> Any:
    """The UNet of the model that the teacher was loaded from, before LoRA or other UNet."""
    if teacher.source is None:
        return teacher.full_precision()
    return load_unet(
        teacher.source, teacher.pipe.unet, "teacher.model", torch.float32, teacher.variant
    )


def _unchanged(prompt: Any, tokenizer: Any) -> Any:
    return prompt

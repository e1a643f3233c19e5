"""What recipes set of the SDXL family. Importing this needs neither torch nor diffusers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from distillkit.configs import BackboneConfig, TeacherConfig
from distillkit.remarks import LevelInputs, Remark, falling
from distillkit_diffusers import presets
from distillkit_diffusers.choices import (
    LORA_TARGETS,
    DType,
    PredictionType,
    SolverName,
    Spacing,
)
from distillkit_diffusers.common.student_config import NetworkStudentConfig
from distillkit_diffusers.common.teacher_config import PipelineTeacherConfig
from distillkit_diffusers.io.folders import flaws_of, missing_variant
from distillkit_diffusers.io.hub import Asset, teacher_assets
from distillkit_diffusers.io.model_configs import (
    assumed_sizes,
    level_channels,
    level_inputs,
    local_path,
    missing_files,
    missing_peft,
    read_unet_config,
    unet_config_of,
)

if TYPE_CHECKING:
    from distillkit import contracts
    from distillkit_diffusers.common.low_rank import Change
    from distillkit_diffusers.teacher import SDXLTeacher


Timestep = Annotated[int, Field(ge=0, le=999)]
Timesteps = Annotated[tuple[Timestep, ...], Field(min_length=1), AfterValidator(falling)]


class SDXLTeacherConfig(PipelineTeacherConfig):
    """A Stable Diffusion XL pipeline, optionally with a LoRA, another UNet or another VAE."""

    presets = presets.PRESETS
    type: Literal["sdxl"] = "sdxl"
    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    """Diffusers folder, `package:NAME/inside/it`, hub id, or single-file checkpoint (a path, or
    owner/repo/file)."""
    config: str | None = None
    """For a single-file checkpoint: folder of its configs and tokenizers. None takes SDXL's, which
    are part of this package."""
    variant: str | None = None
    """Variant of the weight files: `fp16` for the small files of SDXL base."""
    unet: str | None = None
    """UNet weights (.safetensors, .bin) that replace the model's: a path, or owner/repo/file."""
    vae: str | None = None
    """AutoencoderKL folder or hub id that replaces the model's."""
    prediction: PredictionType | None = None
    """What the UNet predicts. None takes the prediction type of the model's scheduler config; of a
    checkpoint in one file, what it states itself (`v_pred`, `modelspec.prediction_type`)."""
    solver: SolverName = "ddim"
    """ddim, dpm++ (2M) and euler are deterministic; the others draw fresh noise between steps."""
    steps: int = Field(8, ge=1, le=1000)
    """Steps from x_T to x_0; `timesteps` overrides it."""
    spacing: Spacing = "trailing"
    """Timestep spacing of ddim, dpm++, euler and euler-ancestral."""
    timesteps: Timesteps | None = None
    """Explicit timesteps in descending order; lcm and euler only."""
    timestep_shift: int = Field(1000, ge=1, le=1000)
    """For lcm-shift, which runs a student of NitroFusion: 250 Realism, 500 Vibrant."""
    eta: float = Field(1.0, ge=0, le=1)
    """For tcd: share of fresh noise between its steps."""

    @classmethod
    def with_preset(cls, name: str, given: dict[str, Any]) -> dict[str, Any]:
        return presets.with_preset(name, given)

    @model_validator(mode="after")
    def _check_timesteps(self) -> SDXLTeacherConfig:
        if self.timesteps is not None and self.solver not in ("lcm", "euler"):
            raise ValueError(
                f"`timesteps` is for lcm and euler; {self.solver} takes `steps` and its own grid"
            )
        return self

    def derived_from(self) -> Iterable[str]:
        return filter(None, (self.model, self.unet, self.lora, self.vae))

    def unet_config(self) -> dict[str, Any] | None:
        """The config of the UNet, where it can be read without loading the model."""
        return read_unet_config(self.model, self.config)

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from missing_files(
            teacher_assets(
                self.model, unet=self.unet, lora=self.lora, vae=self.vae, config=self.config
            )
        )
        folder = local_path(self.model)
        yield from (Remark(flaw, "model") for flaw in flaws_of(folder))
        if flaw := missing_variant(folder, self.variant):
            yield Remark(flaw, "variant")
        if self.config and not folder.is_dir():
            yield from (Remark(flaw, "config") for flaw in flaws_of(local_path(self.config)))
        yield from assumed_sizes(self.model, self.config)
        yield from missing_peft("lora") if self.lora else ()
        yield from presets.unused_options(self)
        yield from super().preflight(recipe)

    def load(self) -> SDXLTeacher:
        from distillkit_diffusers.teacher import load_teacher
        from distillkit_diffusers.teacher_options import TeacherOptions

        return load_teacher(
            self.model,
            TeacherOptions.from_config(self),
            config=self.config,
            variant=self.variant,
            dtype=self.dtype,
            unet=self.unet,
            lora=self.lora,
            lora_strength=self.lora_strength,
            vae=self.vae,
        )

    def without_weights(self, device: str) -> SDXLTeacher:
        from distillkit_diffusers.meta_teacher import meta_teacher
        from distillkit_diffusers.teacher_options import TeacherOptions

        return meta_teacher(
            self.model,
            TeacherOptions.from_config(self),
            config=self.config,
            dtype=self.dtype,
            vae=self.vae,
            device=device,
        )


class UNetEncoderConfig(BackboneConfig):
    """Encoder and mid block of a frozen SDXL-class UNet: ten feature maps (section 3.2)."""

    type: Literal["unet-encoder"] = "unet-encoder"
    of: Literal["teacher", "base"] = "teacher"
    """Whose UNet: the teacher's, which is shared and not copied, or the one in `model`."""
    model: str | None = None
    """For `of: base`: a UNet file or folder, or a pipeline folder; or owner/repo/file."""
    window_ids: Literal["crop", "constant"] = "crop"
    """SDXL's size and crop conditioning of a local view: `crop` states where the view lies in the
    picture, `constant` always states the whole picture."""
    gradient_checkpointing: bool = False
    """Less memory for the gradient through the backbone, for one more forward pass of it."""
    levels: int | None = Field(None, ge=1)
    """Number of feature maps, counted from the input. None takes all of them. Blocks after the last
    map are neither kept nor run."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}

    @model_validator(mode="after")
    def _base_has_a_model(self) -> UNetEncoderConfig:
        if (self.of == "base") != (self.model is not None):
            raise ValueError("`of: base` and `model` go together: give both or neither")
        return self

    def level_channels(self, teacher: TeacherConfig) -> tuple[int, ...] | None:
        unet = unet_config_of(teacher)
        return level_channels(unet)[: self.levels] if unet else None

    def level_inputs(self, teacher: TeacherConfig) -> tuple[LevelInputs, ...] | None:
        unet = unet_config_of(teacher)
        return level_inputs(unet)[: self.levels] if unet else None

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        if self.model is not None:
            yield from missing_files([Asset("backbone.model", self.model, "file")])
        unet = unet_config_of(recipe.teacher)
        if unet and self.levels is not None and self.levels > (there := len(level_channels(unet))):
            yield Remark(f"{self.levels}, but the UNet has {there}", "levels")

    def build(self, teacher: contracts.Teacher) -> contracts.Backbone:
        from distillkit_diffusers.common.quantized import quantize_like
        from distillkit_diffusers.io.loading import load_unet

        def base_unet(unet: Any) -> Any:
            base = load_unet(str(self.model), unet, "backbone.model", unet.dtype)
            quantize_like(base, unet)
            return base

        return self._encoder(teacher, base_unet)

    def outline(self, teacher: contracts.Teacher) -> contracts.Backbone:
        return self._encoder(teacher, copy.deepcopy)

    def _encoder(
        self, teacher: contracts.Teacher, base_unet: Callable[[Any], Any]
    ) -> contracts.Backbone:
        """`base_unet`: makes the UNet of `of: base`, given the teacher's, whose sizes it has."""
        from distillkit_diffusers.backbone import UNetEncoder
        from distillkit_diffusers.teacher import require_sdxl

        sdxl = require_sdxl(teacher, "backbone unet-encoder")
        unet = sdxl.denoiser.module if self.model is None else base_unet(sdxl.denoiser.module)
        return UNetEncoder(
            unet,
            sdxl.vae_factor,
            crop_ids=self.window_ids == "crop",
            gradient_checkpointing=self.gradient_checkpointing,
            levels=self.levels,
        )


class UNetStudentConfig(NetworkStudentConfig):
    """The UNet, trained whole or through a LoRA; published as a diffusers pipeline folder."""

    type: Literal["unet"] = "unet"
    start: str = "teacher"
    """`teacher`, or one-step weights: a UNet file or folder, a pipeline folder, a checkpoint, a
    LoRA (fused into the teacher's UNet); also owner/repo/file, or `package:NAME/inside/it`.
    `A - B`: the difference of two UNets is added to the teacher's; with `train: lora` the best part
    of its rank, layer by layer."""
    targets: tuple[str, ...] = Field(LORA_TARGETS, min_length=1)
    """For `train: lora`: ends of the names of the layers that get one."""
    publish_dtype: DType = "float32"
    """Number format of the UNet in the published folder."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from presets.unpublished_grid(self)
        yield from presets.unknown_targets(self) if self.train == "lora" else ()
        yield from super().preflight(recipe)
        yield from presets.moved_start(self) if not recipe.warmup.student else ()

    def base_of(self, teacher: contracts.Teacher) -> Any:
        return self._teacher(teacher).denoiser.module

    def load_start(self, teacher: contracts.Teacher) -> Any:
        from distillkit_diffusers.io.loading import load_start

        return load_start(self.start, self._teacher(teacher), self.timestep_shift)

    def load_change(self, terms: Sequence[str], teacher: contracts.Teacher) -> Change:
        from distillkit_diffusers.io.loading import load_change

        return load_change(terms, self.base_of(teacher), self.timestep_shift)

    def student_of(self, teacher: contracts.Teacher, module: Any) -> contracts.StudentNetwork:
        from distillkit_diffusers.student import UNetStudent

        return UNetStudent(self._teacher(teacher), module, self.publish_dtype)

    def _teacher(self, teacher: contracts.Teacher) -> SDXLTeacher:
        from distillkit_diffusers.teacher import require_sdxl

        return require_sdxl(teacher, "student unet")

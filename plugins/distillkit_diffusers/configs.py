"""What recipes say about the SDXL family. Importing this needs neither torch nor diffusers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distillkit.configs import BackboneConfig, StudentConfig, TeacherConfig
from distillkit.errors import did_you_mean
from distillkit_diffusers.presets import PRESETS, filled_in
from distillkit_diffusers.words import DType, Offload, Predicts, SolverName, Spacing

if TYPE_CHECKING:
    from distillkit import contracts


class SDXLTeacherConfig(TeacherConfig):
    """A Stable Diffusion XL pipeline, with a LoRA, another UNet or another VAE where asked."""

    type: Literal["sdxl"] = "sdxl"
    preset: str | None = None
    """A published model by name, which fills in the fields below; what stands here has the say."""
    model: str = "stabilityai/stable-diffusion-xl-base-1.0"
    """Diffusers folder, hub id, or a whole checkpoint in one file (also owner/repo/file)."""
    config: str | None = None
    """For one file: the folder of its configs and tokenizers; none takes SDXL's, which ship."""
    variant: str | None = None
    """Variant of the weight files: `fp16` for the small files of SDXL base."""
    dtype: DType = "bfloat16"
    """Number format of the teacher's networks."""
    unet: str | None = None
    """UNet weights (.safetensors, .bin) that replace the model's: a path, or owner/repo/file."""
    lora: str | None = None
    """LoRA that is fused into the weights: a path, or owner/repo/file."""
    lora_strength: float = 1.0
    """Factor of the LoRA."""
    vae: str | None = None
    """AutoencoderKL folder or hub id that replaces the model's."""
    prediction: Predicts | None = None
    """What the UNet predicts; none: what the model's own scheduler says."""
    solver: SolverName = "ddim"
    """ddim, dpm++ (2M) and euler are deterministic; the others draw fresh noise between steps."""
    steps: int = Field(8, ge=1, le=1000)
    """Steps from x_T to x_0; `timesteps` has the say where it is given."""
    spacing: Spacing = "trailing"
    """How ddim, dpm++ and both eulers spread their steps."""
    timesteps: tuple[Annotated[int, Field(ge=0, le=999)], ...] | None = None
    """The very timesteps, falling; lcm and euler only."""
    timestep_shift: int = Field(1000, ge=1, le=1000)
    """For lcm-shift, which runs a student of NitroFusion: 250 Realism, 500 Vibrant."""
    eta: float = Field(1.0, ge=0, le=1)
    """For tcd: share of fresh noise between its steps."""
    guidance: float = Field(0.0, ge=0)
    """Classifier-free guidance; up to 1 the null condition is never run."""
    offload: tuple[Offload, ...] = ()
    """Networks that wait in main memory and are on the device only while they work. With
    `samples.cache_prompt_embeds` the text encoders do not work again once the cache is filled."""
    vae_tiling: bool = False
    """Decode picture by picture in overlapping tiles: less memory for previews and figures, and
    seams that are blended."""
    saves_memory: ClassVar[dict[str, Any]] = {
        "dtype": "bfloat16",
        "vae_tiling": True,
        "offload": ("text_encoders", "vae"),
    }
    same_result: ClassVar[tuple[str, ...]] = ("offload", "vae_tiling")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, dict) else None
        if name is None:
            return given
        if not isinstance(name, str) or name not in PRESETS:
            guess = did_you_mean(str(name), PRESETS)
            raise ValueError(f"no preset '{name}';{guess} presets: {', '.join(PRESETS)}")
        return filled_in(name, given)

    @model_validator(mode="after")
    def _timesteps_fall(self) -> SDXLTeacherConfig:
        if self.timesteps is None:
            return self
        if self.solver not in ("lcm", "euler"):
            raise ValueError(
                f"`timesteps` is for lcm and euler; {self.solver} takes `steps` and its own grid"
            )
        falling = sorted(set(self.timesteps), reverse=True)
        if not falling or list(self.timesteps) != falling:
            raise ValueError(f"`timesteps` should fall, as {falling or [999, 499]} does")
        return self

    def build(self) -> contracts.Teacher:
        from distillkit_diffusers.loading import load_teacher
        from distillkit_diffusers.usage import Usage

        return load_teacher(
            self.model,
            Usage.of(self),
            config=self.config,
            variant=self.variant,
            dtype=self.dtype,
            unet=self.unet,
            lora=self.lora,
            lora_strength=self.lora_strength,
            vae=self.vae,
        )

    def outline(self, device: str = "meta") -> contracts.Teacher:
        """`device`: where the networks are made; other than on meta they have random weights."""
        from distillkit_diffusers.outline import outline_teacher
        from distillkit_diffusers.usage import Usage

        return outline_teacher(
            self.model,
            Usage.of(self),
            config=self.config,
            dtype=self.dtype,
            vae=self.vae,
            device=device,
        )


class UNetEncoderConfig(BackboneConfig):
    """Encoder and mid block of a frozen SDXL-class UNet: ten maps (section 3.2)."""

    type: Literal["unet-encoder"] = "unet-encoder"
    of: Literal["teacher", "base"] = "teacher"
    """Whose UNet: the teacher's, which is shared and not copied, or the one in `model`."""
    model: str | None = None
    """For `of: base`: a UNet file or folder, or a pipeline folder; or owner/repo/file."""
    window_ids: Literal["crop", "constant"] = "crop"
    """Whether SDXL's size and crop ids tell where a local view lies, or always say "all of it"."""
    gradient_checkpointing: bool = False
    """Less memory for the gradient on its way through the backbone, for one more pass of it."""
    levels: int | None = Field(None, ge=1)
    """How many of its maps, from the input on, there are to read; none gives all of them. Blocks
    beyond are neither kept nor run."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}

    @model_validator(mode="after")
    def _base_has_a_model(self) -> UNetEncoderConfig:
        if (self.of == "base") != (self.model is not None):
            raise ValueError("`of: base` and `model` go together: the one needs the other")
        return self

    def build(self, teacher: contracts.Teacher) -> contracts.Backbone:
        from distillkit_diffusers.loading import load_unet

        def own(unet: Any) -> Any:
            return load_unet(str(self.model), unet, "backbone.model", unet.dtype)

        return self._on(teacher, own)

    def outline(self, teacher: contracts.Teacher) -> contracts.Backbone:
        return self._on(teacher, copy.deepcopy)

    def _on(self, teacher: contracts.Teacher, own: Callable[[Any], Any]) -> contracts.Backbone:
        """`own`: a UNet of the backbone's own, of the given one's sizes."""
        from distillkit_diffusers.backbone import UNetEncoder
        from distillkit_diffusers.loading import sdxl_teacher

        family = sdxl_teacher(teacher, "backbone unet-encoder")
        unet = family.denoiser.module if self.model is None else own(family.denoiser.module)
        says_where = self.window_ids == "crop"
        return UNetEncoder(
            unet, family.vae_factor, says_where, self.gradient_checkpointing, self.levels
        )


class UNetStudentConfig(StudentConfig):
    """The UNet, whole or through a LoRA; published as a diffusers pipeline folder."""

    type: Literal["unet"] = "unet"
    start: str = "teacher"
    """`teacher`, or one-step weights: a UNet file or folder, a pipeline folder, a checkpoint, a
    LoRA (fused onto the teacher's UNet); also owner/repo/file."""
    train: Literal["full", "lora"] = "full"
    """`full`: every weight, in float32. `lora`: small matrices beside frozen weights, which are the
    teacher's own tensors where `start` is `teacher`, and else have its number format."""
    rank: int = Field(64, ge=1)
    """For `train: lora`: rank of its matrices."""
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
        min_length=1,
    )
    """For `train: lora`: ends of the names of the layers that get one."""
    gradient_checkpointing: bool = False
    """Less memory for activations, for about a third more compute."""
    publish_dtype: DType = "float32"
    """Number format of the UNet in the published folder."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}
    trains_less: ClassVar[dict[str, Any]] = {"train": "lora"}

    @property
    def can_shard(self) -> bool:
        return self.train == "full"

    def build(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        from distillkit_diffusers.loading import load_start

        return self._on(teacher, lambda unet: load_start(self.start, unet, self.timestep_shift))

    def outline(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        return self._on(teacher, lambda unet: copy.deepcopy(unet).float())

    def _on(
        self, teacher: contracts.Teacher, started: Callable[[Any], Any]
    ) -> contracts.StudentNetwork:
        """`started`: a UNet of its own that a student starts from, of the given one's sizes."""
        from distillkit_diffusers.loading import sdxl_teacher
        from distillkit_diffusers.lora_unet import LoRAUNet
        from distillkit_diffusers.student import UNetStudent, convert, trainable_copy

        family = sdxl_teacher(teacher, "student unet")
        unet = family.denoiser.module
        if self.start != "teacher":
            unet = started(unet)
        if self.train == "lora":
            unet = convert(unet, family.denoiser.module.dtype)
            module = LoRAUNet(unet, self.rank, self.targets, self.gradient_checkpointing)
        else:
            module = trainable_copy(unet, self.start == "teacher", self.gradient_checkpointing)
        return UNetStudent(family, module, self.publish_dtype)

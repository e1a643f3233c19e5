"""What recipes set of the Stable Diffusion 3 family. Importing this needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distillkit.configs import BackboneConfig, Sampler, StudentConfig, TeacherConfig
from distillkit.errors import did_you_mean
from distillkit.remarks import LevelInputs, Remark, without_effect
from distillkit_diffusers.choices import DType, OffloadName
from distillkit_diffusers.io.hub import Asset
from distillkit_diffusers.io.model_configs import missing_files, missing_peft
from distillkit_diffusers.sd3.presets import PRESETS
from distillkit_diffusers.sd3.sizes import configs_of, is_assumed, teacher_assets

if TYPE_CHECKING:
    from distillkit import contracts


class SD3TeacherConfig(TeacherConfig):
    """A Stable Diffusion 3 or 3.5 pipeline, optionally with a LoRA or another transformer."""

    type: Literal["sd3"] = "sd3"
    preset: str | None = None
    """A published model by name. Fields given beside it override the preset's."""
    model: str = "stabilityai/stable-diffusion-3.5-medium"
    """Diffusers folder or hub id."""
    variant: str | None = None
    """Variant of the weight files."""
    dtype: DType = "bfloat16"
    """Number format of the teacher's networks."""
    transformer: str | None = None
    """Transformer weights (.safetensors, diffusers' names) that replace the model's: a path, or
    owner/repo/file."""
    lora: str | None = None
    """LoRA that is fused into the weights: a path, or owner/repo/file."""
    lora_strength: float = 1.0
    """Factor of the LoRA."""
    t5: bool = True
    """Whether the third text encoder is loaded; without it its tokens are zeros, as the family
    allows, and long prompts are followed less well."""
    max_tokens: int = Field(256, ge=1, le=512)
    """Tokens of the third text encoder."""
    steps: int = Field(28, ge=1, le=1000)
    """Euler steps along the flow, spaced as the stock scheduler does; `sigmas` overrides it."""
    sigmas: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = Field(None, min_length=1)
    """Explicit noise levels before the family's shift, falling from 1."""
    guidance: float = Field(4.5, ge=0)
    """Classifier-free guidance scale; up to 1 the null condition is never run."""
    offload: tuple[OffloadName, ...] = ()
    """Networks that are kept in main memory, and on the device only while they run. With
    `samples.cache_prompt_embeds` the text encoders do not run again once the cache is filled."""
    vae_tiling: bool = False
    """Decode one picture at a time, in overlapping tiles with blended seams."""
    saves_memory: ClassVar[dict[str, Any]] = {
        "dtype": "bfloat16",
        "vae_tiling": True,
        "offload": ("text_encoders", "vae"),
        "t5": False,
    }
    same_result: ClassVar[tuple[str, ...]] = ("offload", "vae_tiling")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, dict) else None
        if name is None:
            return given
        if not isinstance(name, str) or name not in PRESETS:
            guess = did_you_mean(str(name), PRESETS)
            raise ValueError(f"no preset '{name}';{guess} presets: {', '.join(PRESETS)}")
        return PRESETS[name] | given

    @model_validator(mode="after")
    def _sigmas_fall(self) -> SD3TeacherConfig:
        falling = sorted(set(self.sigmas or ()), reverse=True)
        if self.sigmas is not None and list(self.sigmas) != falling:
            raise ValueError(f"`sigmas` should fall, like {falling}")
        return self

    def derived_from(self) -> Iterable[str]:
        return filter(None, (self.model, self.transformer, self.lora))

    def transformer_config(self) -> dict[str, Any]:
        """The config of the transformer, as far as it is known here."""
        return configs_of(self.model)["transformer"]

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from missing_files(
            teacher_assets(self.model, self.variant, self.transformer, self.lora)
        )
        if is_assumed(self.model):
            said = f"'{self.model}' is no folder here: its sizes are taken to be SD3.5 medium's"
            yield Remark(said, "model", is_error=False)
        yield from missing_peft("lora") if self.lora else ()
        if self.sigmas is not None:
            yield from without_effect(self, "beside `sigmas`", "steps")
        if not self.lora:
            yield from without_effect(self, "without `lora`", "lora_strength")

    def build(self) -> contracts.Teacher:
        import torch

        from distillkit_diffusers.sd3.loading import load_pipeline
        from distillkit_diffusers.sd3.teacher import SD3Options, SD3Teacher

        pipe = load_pipeline(
            self.model,
            getattr(torch, self.dtype),
            variant=self.variant,
            transformer=self.transformer,
            lora=self.lora,
            lora_strength=self.lora_strength,
            t5=self.t5,
        )
        source = self.model if self.transformer or self.lora else None
        return SD3Teacher(pipe, SD3Options.from_config(self), source)

    def outline(self, device: str = "meta") -> contracts.Teacher:
        """`device`: where the networks are made; other than on meta they have random weights."""
        import torch

        from distillkit_diffusers.sd3.loading import meta_pipeline
        from distillkit_diffusers.sd3.teacher import SD3Options, SD3Teacher

        pipe = meta_pipeline(self.model, getattr(torch, self.dtype), self.t5, device)
        return SD3Teacher(pipe, SD3Options.from_config(self))


class DiTConfig(BackboneConfig):
    """Blocks of the teacher's frozen transformer: the picture's tokens after some of them."""

    type: Literal["dit"] = "dit"
    blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1)
    """Blocks whose tokens are maps for the heads, from 0. None takes five, spread over the depth;
    blocks after the last one are neither kept nor run."""
    positions: Literal["shifted", "constant"] = "shifted"
    """Where a local view's patches are told to lie: where they were in the picture, or always in
    its middle."""
    gradient_checkpointing: bool = False
    """Less memory for the gradient through the backbone, for one more forward pass of it."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}

    @model_validator(mode="after")
    def _blocks_rise(self) -> DiTConfig:
        rising = sorted(set(self.blocks or ()))
        if self.blocks is not None and list(self.blocks) != rising:
            raise ValueError(f"`blocks` should rise, like {rising}")
        return self

    def level_channels(self, teacher: TeacherConfig) -> tuple[int, ...] | None:
        if not isinstance(teacher, SD3TeacherConfig):
            return None
        config = teacher.transformer_config()
        taps = len(self.blocks) if self.blocks else min(5, int(config["num_layers"]))
        return (config["num_attention_heads"] * config["attention_head_dim"],) * taps

    def level_inputs(self, teacher: TeacherConfig) -> tuple[LevelInputs, ...] | None:
        # Every block mixes the words into the picture's tokens, and is modulated by t and the
        # pooled prompt.
        channels = self.level_channels(teacher)
        return (LevelInputs("the prompt"),) * len(channels) if channels is not None else None

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        if isinstance(recipe.teacher, SD3TeacherConfig) and self.blocks:
            there = recipe.teacher.transformer_config()["num_layers"]
            if self.blocks[-1] >= there:
                said = f"there is no block {self.blocks[-1]}; the network's are 0 to {there - 1}"
                yield Remark(said, "blocks")

    def build(self, teacher: contracts.Teacher) -> contracts.Backbone:
        from distillkit_diffusers.sd3.backbone import MMDiTBackbone
        from distillkit_diffusers.sd3.teacher import require_sd3

        family = require_sd3(teacher, "backbone dit")
        return MMDiTBackbone(
            family.denoiser.module,
            family.schedule,
            self.blocks,
            shifted=self.positions == "shifted",
            gradient_checkpointing=self.gradient_checkpointing,
        )


class SD3StudentConfig(StudentConfig):
    """The transformer, trained whole or through a LoRA; published as a diffusers folder."""

    type: Literal["sd3"] = "sd3"
    timestep_shift: int = Field(1000, ge=1000, le=1000)
    """The network is run at its own noise level: a flow needs no shift."""
    sampler: Sampler = "euler"
    """Between steps: `euler` follows the flow, as most published students of flow matching do;
    `renoise` adds fresh noise to x_0-hat, as consistency models do."""
    start: str = "teacher"
    """`teacher`, or a file: a published student's transformer (diffusers' names), or a LoRA, which
    is fused into the teacher's transformer; also owner/repo/file."""
    train: Literal["full", "lora"] = "full"
    """`full`: every weight, in float32. `lora`: low-rank matrices beside frozen weights, which are
    the teacher's own tensors where `start` is `teacher`."""
    rank: int = Field(64, ge=1)
    """For `train: lora`: rank of its matrices."""
    targets: tuple[str, ...] = Field(
        (
            *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
            *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
            *("ff.net.0.proj", "ff.net.2"),
        ),
        min_length=1,
    )
    """For `train: lora`: ends of the names of the layers that get one."""
    gradient_checkpointing: bool = False
    """Less memory for activations, for about a third more compute."""
    publish_dtype: DType = "float32"
    """Number format of the transformer in the published folder."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}
    trains_less: ClassVar[dict[str, Any]] = {"train": "lora"}

    @property
    def can_shard(self) -> bool:
        return self.train == "full"

    def derived_from(self) -> Iterable[str]:
        return () if self.start == "teacher" else (self.start,)

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from missing_peft("train") if self.train == "lora" else ()
        if self.start != "teacher":
            yield from missing_files([Asset("student.start", self.start, "file")])
        elif not recipe.warmup.student:
            said = (
                "the teacher's weights need many steps, and there is no warm-up to one step: "
                "without `warmup.student` and `warmup.losses` the critics win from the start"
            )
            yield Remark(said, "start", is_error=False)
        if self.train == "full":
            yield from without_effect(self, "with `train: full`", "rank", "targets")

    def build(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        from distillkit_diffusers.sd3.start import load_start

        return self._student(teacher, lambda network: load_start(self.start, network))

    def outline(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        return self._student(teacher, copy.deepcopy)

    def _student(
        self, teacher: contracts.Teacher, start: Callable[[Any], Any]
    ) -> contracts.StudentNetwork:
        """`start`: makes the network of another `start`, given the teacher's."""
        from distillkit_diffusers.io.weights import convert
        from distillkit_diffusers.lora_twin import LoRATwin
        from distillkit_diffusers.sd3.student import SD3Student
        from distillkit_diffusers.sd3.teacher import require_sd3
        from distillkit_diffusers.student import make_trainable

        family = require_sd3(teacher, "student sd3")
        base = family.denoiser.module
        if self.start == "teacher":
            network = base if self.train == "lora" else copy.deepcopy(base)
        else:
            network = start(base)
        if self.train == "lora":
            network = convert(network, base.dtype)
            module = LoRATwin(network, self.rank, self.targets, self.gradient_checkpointing)
        else:
            module = make_trainable(network, self.gradient_checkpointing)
        return SD3Student(family, module, self.levels, self.sampler, self.publish_dtype)

"""What recipes set of transformers that predict a flow. Importing this needs no torch."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distillkit.configs import Sampler, StudentConfig, TeacherConfig
from distillkit.errors import did_you_mean
from distillkit.remarks import Remark, without_effect
from distillkit_diffusers.choices import DType, OffloadName
from distillkit_diffusers.io.hub import Asset
from distillkit_diffusers.io.model_configs import missing_files, missing_peft

if TYPE_CHECKING:
    from distillkit import contracts
    from distillkit_diffusers.flow.family import Blocks, Family
    from distillkit_diffusers.flow.teacher import FlowTeacher


class FlowTeacherConfig(TeacherConfig):
    """A diffusers pipeline with a transformer, optionally with a LoRA or another transformer."""

    family: ClassVar[Family]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    preset: str | None = None
    """A published model by name. Fields given beside it override the preset's."""
    model: str
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
    max_tokens: int = Field(512, ge=1, le=512)
    """Tokens of the text encoder."""
    steps: int = Field(28, ge=1, le=1000)
    """Euler steps along the flow, spaced as the stock pipeline does; `sigmas` overrides it."""
    sigmas: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = Field(None, min_length=1)
    """Explicit noise levels before the family's shift, falling from 1."""
    guidance: float = Field(0.0, ge=0)
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
    }
    same_result: ClassVar[tuple[str, ...]] = ("offload", "vae_tiling")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, dict) else None
        if name is None:
            return given
        if not isinstance(name, str) or name not in cls.presets:
            guess = did_you_mean(str(name), cls.presets)
            raise ValueError(f"no preset '{name}';{guess} presets: {', '.join(cls.presets)}")
        return {**cls.presets[name], **given}

    @model_validator(mode="after")
    def _sigmas_fall(self) -> FlowTeacherConfig:
        falling = sorted(set(self.sigmas or ()), reverse=True)
        if self.sigmas is not None and list(self.sigmas) != falling:
            raise ValueError(f"`sigmas` should fall, like {falling}")
        return self

    def derived_from(self) -> Iterable[str]:
        return filter(None, (self.model, self.transformer, self.lora))

    def transformer_config(self) -> Mapping[str, Any]:
        """The config of the transformer, as far as it is known here."""
        return self.family.configs_of(self.model)["transformer"]

    def blocks(self) -> Blocks:
        """What critics may tap in the transformer."""
        return self.family.blocks(self.transformer_config())

    def left_out(self) -> tuple[str, ...]:
        """Parts of the pipeline that are not loaded."""
        return ()

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        family, folder = self.family, Path(self.model).expanduser()
        yield from missing_files(
            family.assets(self.model, self.variant, self.transformer, self.lora)
        )
        if flaw := family.flaw_of(folder, self.left_out()):
            yield Remark(flaw, "model")
        if family.is_assumed(self.model):
            first = next(iter(family.sizes))
            said = f"'{self.model}' is no folder here: its sizes are taken to be those of {first}"
            yield Remark(said, "model", is_error=False)
        yield from missing_peft("lora") if self.lora else ()
        if self.sigmas is not None:
            yield from without_effect(self, "beside `sigmas`", "steps")
        if not self.lora:
            yield from without_effect(self, "without `lora`", "lora_strength")

    def build(self) -> contracts.Teacher:
        import torch

        from distillkit_diffusers.flow.loading import load_pipeline

        pipe = load_pipeline(
            self.family,
            self.model,
            getattr(torch, self.dtype),
            variant=self.variant,
            transformer=self.transformer,
            lora=self.lora,
            lora_strength=self.lora_strength,
            left_out=self.left_out(),
        )
        return self.teacher(pipe, self.model if self.transformer or self.lora else None)

    def outline(self, device: str = "meta") -> contracts.Teacher:
        """`device`: where the networks are made; other than on meta they have random weights."""
        import torch

        from distillkit_diffusers.flow.loading import meta_pipeline

        pipe = meta_pipeline(
            self.family, self.model, getattr(torch, self.dtype), self.left_out(), device
        )
        return self.teacher(pipe)

    def teacher(self, pipe: Any, source: str | None = None) -> FlowTeacher:
        """The family's teacher on a pipeline. `source`: where the pipeline's own transformer is,
        if a LoRA or another one replaced it."""
        raise NotImplementedError


class FlowStudentConfig(StudentConfig):
    """The transformer, trained whole or through a LoRA; published as a diffusers folder."""

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
    targets: tuple[str, ...] = Field((), min_length=1)
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
        from distillkit_diffusers.flow.loading import load_start

        return self._student(teacher, lambda family: load_start(self.start, family))

    def outline(self, teacher: contracts.Teacher) -> contracts.StudentNetwork:
        return self._student(teacher, lambda family: copy.deepcopy(family.denoiser.module))

    def _student(
        self, teacher: contracts.Teacher, start: Callable[[FlowTeacher], Any]
    ) -> contracts.StudentNetwork:
        """`start`: makes the network of another `start`."""
        from distillkit_diffusers.flow.student import FlowStudent
        from distillkit_diffusers.flow.teacher import require_flow
        from distillkit_diffusers.io.weights import convert
        from distillkit_diffusers.lora_twin import LoRATwin
        from distillkit_diffusers.student import make_trainable

        family = require_flow(teacher, f"student {self.type}", str(self.type))
        base = family.denoiser.module
        if self.start == "teacher":
            network = base if self.train == "lora" else copy.deepcopy(base)
        else:
            network = start(family)
        if self.train == "lora":
            network = convert(network, base.dtype)
            module = LoRATwin(network, self.rank, self.targets, self.gradient_checkpointing)
        else:
            module = make_trainable(network, self.gradient_checkpointing)
        return FlowStudent(family, module, self.levels, self.sampler, self.publish_dtype)

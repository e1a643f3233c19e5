"""What recipes set of transformers that predict a flow. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from distillkit.configs import Sampler
from distillkit.remarks import Remark, falling, without_effect
from distillkit_diffusers.choices import DType
from distillkit_diffusers.common.low_rank import start_terms
from distillkit_diffusers.common.student_config import NetworkStudentConfig
from distillkit_diffusers.common.teacher_config import PipelineTeacherConfig
from distillkit_diffusers.flow.starts import misfit_grid, model_of, start_asset
from distillkit_diffusers.io.hub import Asset
from distillkit_diffusers.io.model_configs import local_path, missing_files, missing_peft

if TYPE_CHECKING:
    from distillkit import contracts
    from distillkit_diffusers.common.low_rank import Change
    from distillkit_diffusers.flow.family import Blocks, Family
    from distillkit_diffusers.flow.teacher import FlowTeacher


Sigma = Annotated[float, Field(gt=0, le=1)]
Sigmas = Annotated[tuple[Sigma, ...], Field(min_length=1), AfterValidator(falling)]


class FlowTeacherConfig(PipelineTeacherConfig):
    """A diffusers pipeline with a transformer, optionally with a LoRA or another transformer."""

    family: ClassVar[Family]
    transformer: str | None = None
    """Transformer weights (.safetensors, with diffusers' names or the original ones) that replace
    the model's: a path, or owner/repo/file."""
    max_tokens: int = Field(512, ge=1, le=512)
    """Tokens of the text encoder."""
    steps: int = Field(28, ge=1, le=1000)
    """Euler steps along the flow, spaced as the stock pipeline does; `sigmas` overrides it."""
    sigmas: Sigmas | None = None
    """Explicit noise levels before the family's shift, falling from 1."""

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
        family, folder = self.family, local_path(self.model)
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
        yield from super().preflight(recipe)

    def load(self) -> FlowTeacher:
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

    def without_weights(self, device: str) -> FlowTeacher:
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


class FlowStudentConfig(NetworkStudentConfig):
    """The transformer, trained whole or through a LoRA; published as a diffusers folder."""

    family: ClassVar[Family]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    timestep_shift: int = Field(1000, ge=1000, le=1000)
    """The network is run at its own noise level: a flow needs no shift."""
    sampler: Sampler = "euler"
    """Between steps: `euler` follows the flow, as most published students of flow matching do;
    `renoise` adds fresh noise to x_0-hat, as consistency models do."""
    start: str = "teacher"
    """`teacher`, or a published student: a preset's name, a pipeline folder or hub id, a file of a
    transformer, or a LoRA, which is fused into the teacher's transformer; also owner/repo/file.
    `A - B`: the difference of two models, such as a turbo and its base, is added to the teacher's
    weights; with `train: lora` the best part of its rank, layer by layer."""
    publish_dtype: DType = "float32"
    """Number format of the transformer in the published folder."""

    def start_assets(self) -> list[Asset]:
        terms = (model_of(term, self.presets) for term in start_terms(self.start))
        return [start_asset(term, self.family) for term in terms]

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        if isinstance(recipe.teacher, FlowTeacherConfig):
            yield from misfit_grid(self, recipe.teacher)

    def base_of(self, teacher: contracts.Teacher) -> Any:
        return self._teacher(teacher).denoiser.module

    def load_start(self, teacher: contracts.Teacher) -> Any:
        from distillkit_diffusers.flow.loading import load_start

        return load_start(self.start_assets()[0], self._teacher(teacher))

    def load_change(self, terms: Sequence[str], teacher: contracts.Teacher) -> Change:
        from distillkit_diffusers.flow.loading import load_change

        return load_change(self.start_assets(), self._teacher(teacher))

    def student_of(self, teacher: contracts.Teacher, module: Any) -> contracts.StudentNetwork:
        from distillkit_diffusers.flow.student import FlowStudent

        family = self._teacher(teacher)
        return FlowStudent(family, module, self.levels, self.sampler, self.publish_dtype)

    def _teacher(self, teacher: contracts.Teacher) -> FlowTeacher:
        from distillkit_diffusers.flow.teacher import require_flow

        return require_flow(teacher, f"student {self.type}", self.family.type)

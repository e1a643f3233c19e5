"""What recipes set of the FLUX.2 family (klein). Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit.remarks import Remark, without_effect
from distillkit_diffusers.flow.configs import FlowStudentConfig, FlowTeacherConfig
from distillkit_diffusers.flux2.family import DISTILLED, FLUX2
from distillkit_diffusers.flux2.presets import PRESETS
from distillkit_diffusers.io.model_configs import local_path, read_json

if TYPE_CHECKING:
    from distillkit_diffusers.flux2.teacher import Flux2Teacher


class Flux2TeacherConfig(FlowTeacherConfig):
    """A FLUX.2 klein pipeline, optionally with a LoRA or another transformer."""

    family = FLUX2
    presets = PRESETS
    type: Literal["flux2"] = "flux2"
    model: str = "black-forest-labs/FLUX.2-klein-base-4B"
    """Diffusers folder, `package:NAME/inside/it`, or hub id."""
    resolution: int | None = Field(None, ge=32, multiple_of=16)
    """Height and width of the pictures, in pixels. None takes the VAE's `sample_size`, which is
    1024 for published models."""
    steps: int = Field(50, ge=1, le=1000)
    """Euler steps along the flow, spaced as the stock pipeline does; `sigmas` overrides it."""
    guidance: float = Field(4.0, ge=0)
    """Classifier-free guidance scale; up to 1, and for distilled models, the null condition is
    never run."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        index = read_json(local_path(self.model) / "model_index.json")
        if index.get("is_distilled", self.model in DISTILLED) and self.guidance > 1:
            why = "with a model that was distilled with its guidance"
            yield from without_effect(self, why, "guidance")

    def teacher(self, pipe: Any, source: str | None = None) -> Flux2Teacher:
        from distillkit_diffusers.flux2.teacher import Flux2Options, Flux2Teacher

        return Flux2Teacher(pipe, Flux2Options.from_config(self), source)


class Flux2StudentConfig(FlowStudentConfig):
    """The transformer, trained whole or through a LoRA; published as a diffusers folder."""

    family = FLUX2
    presets = PRESETS
    type: Literal["flux2"] = "flux2"
    targets: tuple[str, ...] = Field(FLUX2.lora_targets, min_length=1)
    """For `train: lora`: ends of the names of the layers that get one."""

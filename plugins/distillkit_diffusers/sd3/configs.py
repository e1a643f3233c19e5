"""What recipes set of the Stable Diffusion 3 family. Importing this needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from distillkit_diffusers.flow.configs import FlowStudentConfig, FlowTeacherConfig
from distillkit_diffusers.sd3.family import SD3
from distillkit_diffusers.sd3.presets import PRESETS

if TYPE_CHECKING:
    from distillkit_diffusers.sd3.teacher import SD3Teacher


class SD3TeacherConfig(FlowTeacherConfig):
    """A Stable Diffusion 3 or 3.5 pipeline, optionally with a LoRA or another transformer."""

    family = SD3
    presets = PRESETS
    type: Literal["sd3"] = "sd3"
    model: str = "stabilityai/stable-diffusion-3.5-medium"
    """Diffusers folder, `package:NAME/inside/it`, or hub id."""
    t5: bool = True
    """Whether the third text encoder is loaded; without it its tokens are zeros, as the family
    allows, and long prompts are followed less well."""
    max_tokens: int = Field(256, ge=1, le=512)
    """Tokens of the third text encoder."""
    guidance: float = Field(4.5, ge=0)
    """Classifier-free guidance scale; up to 1 the null condition is never run."""
    saves_memory: ClassVar[dict[str, Any]] = {**FlowTeacherConfig.saves_memory, "t5": False}

    def left_out(self) -> tuple[str, ...]:
        return () if self.t5 else ("text_encoder_3", "tokenizer_3")

    def teacher(self, pipe: Any, source: str | None = None) -> SD3Teacher:
        from distillkit_diffusers.flow.teacher import FlowOptions
        from distillkit_diffusers.sd3.teacher import SD3Teacher

        return SD3Teacher(pipe, FlowOptions.from_config(self), source)


class SD3StudentConfig(FlowStudentConfig):
    """The transformer, trained whole or through a LoRA; published as a diffusers folder."""

    family = SD3
    presets = PRESETS
    type: Literal["sd3"] = "sd3"
    targets: tuple[str, ...] = Field(SD3.lora_targets, min_length=1)
    """For `train: lora`: ends of the names of the layers that get one."""

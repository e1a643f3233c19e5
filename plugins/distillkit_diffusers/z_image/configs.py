"""What recipes set of the Z-Image family. Importing this needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit_diffusers.flow.configs import FlowStudentConfig, FlowTeacherConfig
from distillkit_diffusers.z_image.family import Z_IMAGE
from distillkit_diffusers.z_image.presets import PRESETS

if TYPE_CHECKING:
    from distillkit_diffusers.z_image.teacher import ZImageTeacher


class ZImageTeacherConfig(FlowTeacherConfig):
    """A Z-Image pipeline, optionally with a LoRA or another transformer."""

    family = Z_IMAGE
    presets = PRESETS
    type: Literal["z-image"] = "z-image"
    model: str = "Tongyi-MAI/Z-Image"
    """Diffusers folder, `package:NAME/inside/it`, or hub id."""
    resolution: int | None = Field(None, ge=32, multiple_of=16)
    """Height and width of the pictures, in pixels. None takes the VAE's `sample_size`, which is
    1024 for published models."""
    steps: int = Field(50, ge=1, le=1000)
    """Euler steps along the flow, spaced as the stock pipeline does; `sigmas` overrides it."""
    guidance: float = Field(4.0, ge=0)
    """Classifier-free guidance as the family counts it: v + guidance (v - v_null); 0 never runs the
    null condition."""
    cfg_normalization: float = Field(0.0, ge=0)
    """Above 0: the guided flow's norm is at most this times the unguided one's."""
    cfg_truncation: float = Field(1.0, ge=0, le=1)
    """Guidance ends where 1 - sigma passes this; 1 is never."""

    @property
    def guidance_scale(self) -> float:
        """The guidance as null + scale (v - null), which other families and losses count."""
        return 1 + self.guidance

    def teacher(self, pipe: Any, source: str | None = None) -> ZImageTeacher:
        from distillkit_diffusers.z_image.teacher import ZImageOptions, ZImageTeacher

        return ZImageTeacher(pipe, ZImageOptions.from_config(self), source)


class ZImageStudentConfig(FlowStudentConfig):
    """The transformer, trained whole or through a LoRA; published as a diffusers folder."""

    family = Z_IMAGE
    presets = PRESETS
    type: Literal["z-image"] = "z-image"
    targets: tuple[str, ...] = Field(Z_IMAGE.lora_targets, min_length=1)
    """For `train: lora`: ends of the names of the layers that get one."""

"""What recipes set of every teacher that is a diffusers pipeline. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, model_validator

from distillkit.configs import TeacherConfig
from distillkit.errors import did_you_mean
from distillkit_diffusers.choices import DType, OffloadName


class PipelineTeacherConfig(TeacherConfig):
    """A diffusers pipeline, optionally with a LoRA; families' configs extend it."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Name -> fields of a published model."""
    preset: str | None = None
    """A published model by name. Fields given beside it override the preset's."""
    model: str
    """Diffusers folder or hub id."""
    variant: str | None = None
    """Variant of the weight files."""
    dtype: DType = "bfloat16"
    """Number format of the teacher's networks."""
    lora: str | None = None
    """LoRA that is fused into the weights: a path, or owner/repo/file."""
    lora_strength: float = 1.0
    """Factor of the LoRA."""
    guidance: float = Field(0.0, ge=0)
    """Classifier-free guidance scale; up to 1 the null condition is never run."""
    offload: tuple[OffloadName, ...] = ()
    """Networks that are kept in main memory, and on the device only while they run. With
    `samples.cache_prompt_embeds` the text encoders do not run again once the cache is filled."""
    vae_tiling: bool = False
    """Decode one picture at a time, in overlapping tiles with blended seams: less memory for
    previews and evaluation."""
    saves_memory: ClassVar[dict[str, Any]] = {
        "dtype": "bfloat16",
        "vae_tiling": True,
        "offload": ("text_encoders", "vae"),
    }
    same_result: ClassVar[tuple[str, ...]] = ("offload", "vae_tiling")

    @classmethod
    def with_preset(cls, name: str, given: dict[str, Any]) -> dict[str, Any]:
        """The preset's fields, overridden by the given ones."""
        return {**cls.presets[name], **given}

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, given: Any) -> Any:
        name = given.get("preset") if isinstance(given, dict) else None
        if name is None:
            return given
        if not isinstance(name, str) or name not in cls.presets:
            guess = did_you_mean(str(name), cls.presets)
            raise ValueError(f"no preset '{name}';{guess} presets: {', '.join(cls.presets)}")
        return cls.with_preset(name, given)

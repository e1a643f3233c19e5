"""What recipes set of every teacher that is a diffusers pipeline. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from distillkit.configs import TeacherConfig
from distillkit.errors import did_you_mean
from distillkit.remarks import Remark
from distillkit_diffusers.choices import DType, OffloadName

if TYPE_CHECKING:
    from distillkit import contracts


class PipelineTeacherConfig(TeacherConfig):
    """A diffusers pipeline, optionally with a LoRA; families' configs extend it."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    """Name -> fields of a published model."""
    preset: str | None = None
    """A published model by name. Fields given beside it override the preset's."""
    model: str
    """Diffusers folder, `package:NAME/inside/it`, or hub id."""
    variant: str | None = None
    """Variant of the weight files."""
    dtype: DType = "bfloat16"
    """Number format of the teacher's networks."""
    # Left out where it is not set: caches of samples that were made before there was this field
    # name the teacher's fields, and stay good.
    bits: Literal[8, 4] | None = Field(None, exclude_if=lambda value: value is None)
    """Bits of a weight in the linear layers of the denoiser's blocks, by bitsandbytes (pip install
    'distillkit[8bit]'): less memory, for a less exact teacher. Products are computed in `dtype`, by
    weights that are unpacked layer by layer. Backbones and LoRA students share them; a published
    student has whole weights."""
    lora: str | None = None
    """LoRA that is fused into the weights: a path, or owner/repo/file."""
    lora_strength: float = 1.0
    """Factor of the LoRA."""
    guidance: float = Field(0.0, ge=0)
    """Classifier-free guidance scale; up to 1 the null condition is never run."""
    offload: tuple[OffloadName, ...] = ()
    """Networks that are kept in main memory, and on the device only while they run. With
    `samples.cache_prompt_embeds` the text encoders do not run again once the cache is filled."""
    # Left out likewise: rows of pictures that were drawn without it stay good.
    vae_tiling: bool = Field(False, exclude_if=lambda value: not value)
    """Decode one picture at a time, in overlapping tiles with blended seams: less memory for
    previews and evaluation, whose pictures differ a little from untiled ones. Pictures are encoded
    whole, one at a time."""
    saves_memory: ClassVar[dict[str, Any]] = {
        "dtype": "bfloat16",
        "vae_tiling": True,
        "offload": ("text_encoders", "vae"),
    }
    same_result: ClassVar[tuple[str, ...]] = ("offload",)
    same_latents: ClassVar[tuple[str, ...]] = ("vae_tiling",)

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

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        if self.bits is not None and find_spec("bitsandbytes") is None:
            said = "8 and 4 bits need bitsandbytes: pip install 'distillkit[8bit]'"
            yield Remark(said, "bits")

    def build(self) -> contracts.Teacher:
        teacher = self.load()
        if self.bits is not None:
            teacher.quantize(self.bits, lambda: self.load().denoisers()[0])
        return teacher

    def outline(self, device: str = "meta") -> contracts.Teacher:
        """`device`: where the networks are made; other than on meta they have random weights."""
        teacher = self.without_weights(device)
        if self.bits is not None:
            teacher.quantize(self.bits)
        return teacher

    def load(self) -> Any:
        """The family's teacher from its files, in `dtype` throughout."""
        raise NotImplementedError

    def without_weights(self, device: str) -> Any:
        """The same of its true sizes, made on `device`."""
        raise NotImplementedError

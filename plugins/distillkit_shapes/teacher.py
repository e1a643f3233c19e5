"""The shipped teacher: a StableDiffusionXLPipeline in small, which draws captioned shapes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit.configs import TeacherConfig

if TYPE_CHECKING:
    from distillkit import contracts
    from distillkit_diffusers.teacher_options import TeacherOptions

TEACHER = Path(__file__).parent / "teacher"
"""The shipped pipeline's folder."""


class ShapesTeacherConfig(TeacherConfig):
    """The embedded SDXL-class pipeline: 64x64 pictures of captioned shapes."""

    type: Literal["shapes"] = "shapes"
    solver: Literal["ddim", "dpm++", "euler", "euler-ancestral"] = "dpm++"
    """Sampler. euler-ancestral draws fresh noise between its steps, so that one x_T has many
    x_0; the others solve the sampling ODE, and x_0 is a function of x_T."""
    steps: int = Field(8, ge=1, le=1000)
    """Steps from x_T to x_0, with trailing spacing."""
    guidance: float = Field(2.0, ge=0)
    """Classifier-free guidance; up to 1 the null condition is never run. Without guidance the
    captions are followed far less well."""

    def derived_from(self) -> Iterable[str]:
        return ("package:distillkit_shapes/teacher",)

    def unet_config(self) -> dict[str, Any] | None:
        """The config of the UNet, for the family's backbone."""
        from distillkit_diffusers.io.model_configs import read_unet_config

        return read_unet_config(TEACHER)

    def build(self) -> contracts.Teacher:
        from distillkit_diffusers.teacher import load_teacher

        return load_teacher(TEACHER, self._options())

    def outline(self) -> contracts.Teacher:
        from distillkit_diffusers.meta_teacher import meta_teacher

        return meta_teacher(TEACHER, self._options())

    def _options(self) -> TeacherOptions:
        from distillkit_diffusers.teacher_options import TeacherOptions

        return TeacherOptions(solver=self.solver, steps=self.steps, guidance=self.guidance)

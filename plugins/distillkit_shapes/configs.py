"""What recipes say about the shapes world. Importing this needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import MetricsConfig, PromptsConfig, TeacherConfig

if TYPE_CHECKING:
    from distillkit import contracts
    from distillkit_diffusers.usage import Usage


class ShapesTeacher(TeacherConfig):
    """The embedded SDXL-class pipeline: 64x64 pictures of captioned shapes."""

    type: Literal["shapes"] = "shapes"
    solver: Literal["ddim", "dpm++", "euler"] = "dpm++"
    """All are deterministic."""
    steps: int = Field(8, ge=1, le=1000)
    """Steps from x_T to x_0, trailing."""
    guidance: float = Field(2.0, ge=0)
    """Classifier-free guidance; up to 1 the null condition is never run. Without it the captions
    are followed far less well."""

    def build(self) -> contracts.Teacher:
        from distillkit_diffusers.loading import load_teacher
        from distillkit_shapes.build import TEACHER

        return load_teacher(TEACHER, self._usage())

    def outline(self) -> contracts.Teacher:
        from distillkit_diffusers.outline import outline_teacher
        from distillkit_shapes.build import TEACHER

        return outline_teacher(TEACHER, self._usage())

    def _usage(self) -> Usage:
        from distillkit_diffusers.usage import Usage

        return Usage(solver=self.solver, steps=self.steps, guidance=self.guidance)


class ShapesPrompts(PromptsConfig):
    """Captions of random scenes, without those that are held out for the figures."""

    type: Literal["shapes"] = "shapes"
    count: int = Field(4096, ge=1)
    """Number of captions."""
    seed: int = Field(0, ge=0)
    """Seed of the scenes."""

    def build(self) -> contracts.PromptSource:
        from distillkit_shapes.prompts import draw_captions

        return draw_captions(self.count, self.seed, held_out=False)


class ShapesMetrics(MetricsConfig):
    """What the oracle and the world's own classifier say of pictures of held-out captions."""

    type: Literal["shapes"] = "shapes"

    def build(self) -> contracts.Metrics:
        from distillkit_shapes.judge import ShapesJudge

        return ShapesJudge(self.seed)

"""What recipes set of the backbone `dit`. Importing this needs no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from distillkit.configs import BackboneConfig, TeacherConfig
from distillkit.remarks import LevelInputs, Remark, rising
from distillkit_diffusers.flow.configs import FlowTeacherConfig
from distillkit_diffusers.flow.family import spread

if TYPE_CHECKING:
    from distillkit import contracts


Blocks = Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(rising)]


class DiTConfig(BackboneConfig):
    """Blocks of the teacher's frozen transformer: the picture's tokens after some of them."""

    type: Literal["dit"] = "dit"
    blocks: Blocks | None = Field(None, min_length=1)
    """Blocks whose tokens are maps for the heads, from 0. None takes five, spread over the depth;
    blocks after the last one are neither kept nor run."""
    positions: Literal["shifted", "constant"] = "shifted"
    """Where a local view's patches are told to lie: where they were in the picture, or always in
    the place of a whole picture of its size."""
    gradient_checkpointing: bool = False
    """Less memory for the gradient through the backbone, for one more forward pass of it."""
    saves_memory: ClassVar[dict[str, Any]] = {"gradient_checkpointing": True}

    def level_channels(self, teacher: TeacherConfig) -> tuple[int, ...] | None:
        if not isinstance(teacher, FlowTeacherConfig):
            return None
        there = teacher.blocks()
        return (there.width,) * len(self.blocks or spread(there.depth))

    def level_inputs(self, teacher: TeacherConfig) -> tuple[LevelInputs, ...] | None:
        # Every block mixes the words into the picture's tokens, and is modulated by t.
        channels = self.level_channels(teacher)
        return (LevelInputs("the prompt"),) * len(channels) if channels is not None else None

    def pooled_channels(self, teacher: TeacherConfig) -> int | None:
        return teacher.blocks().pooled if isinstance(teacher, FlowTeacherConfig) else None

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        if isinstance(recipe.teacher, FlowTeacherConfig) and self.blocks:
            there = recipe.teacher.blocks().depth
            if self.blocks[-1] >= there:
                said = f"there is no block {self.blocks[-1]}; the network's are 0 to {there - 1}"
                yield Remark(said, "blocks")

    def build(self, teacher: contracts.Teacher) -> contracts.Backbone:
        from distillkit_diffusers.flow.dit import DiTBackbone
        from distillkit_diffusers.flow.teacher import require_flow

        return DiTBackbone(
            require_flow(teacher, "backbone dit"),
            self.blocks,
            shifted=self.positions == "shifted",
            gradient_checkpointing=self.gradient_checkpointing,
        )

"""The values that recipe fields choose from, and which choices leave other fields without effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from distillkit.configs import LEVELS, Remark, without_effect

SolverName = Literal["ddim", "dpm++", "euler", "euler-ancestral", "lcm", "lcm-shift", "tcd"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
Spacing = Literal["trailing", "leading", "linspace"]
DType = Literal["float32", "bfloat16", "float16"]
OffloadName = Literal["text_encoders", "vae"]
FileDType = Literal["fp16", "bf16", "fp32"]
"""Number formats of exported files, by the names that their users know."""


def unused_options(teacher: Any) -> Iterator[Remark]:
    """Fields of a teacher's config that its solver, or another field, leaves without effect."""
    solver = teacher.solver
    for field, owner in (("eta", "tcd"), ("timestep_shift", "lcm-shift")):
        if solver != owner:
            yield from without_effect(teacher, f"with solver {solver}; it is for {owner}", field)
    if solver in ("lcm", "lcm-shift", "tcd"):
        yield from without_effect(teacher, f"with solver {solver}, which has its own", "spacing")
    if teacher.timesteps is not None:
        yield from without_effect(teacher, "beside `timesteps`, which overrides it", "steps")
    if teacher.lora is None:
        yield from without_effect(teacher, "without `lora`", "lora_strength")


def unpublished_grid(student: Any) -> Iterator[Remark]:
    """A note on a student's grid that its published folder does not have."""
    if student.sampler != "renoise" or student.levels != LEVELS:
        said = (
            "the published folder's scheduler adds fresh noise at 999, 749, 499 and 249: other "
            "software will not draw as this recipe does"
        )
        field = "levels" if student.levels != LEVELS else "sampler"
        yield Remark(said, field, is_error=False)

"""What a student of a transformer may start from, and whether its grid fits. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillkit.configs import LEVELS
from distillkit.remarks import Remark
from distillkit_diffusers.common.low_rank import start_terms
from distillkit_diffusers.io.hub import Asset

if TYPE_CHECKING:
    from distillkit_diffusers.flow.configs import FlowStudentConfig, FlowTeacherConfig
    from distillkit_diffusers.flow.family import Family

NEAR = 0.01
"""Noise levels that differ by less are one."""


def model_of(term: str, presets: Mapping[str, Mapping[str, Any]]) -> str:
    """The model that a term of `start` names: a preset's, or itself."""
    return str(presets[term]["model"]) if term in presets else term


def start_asset(spec: str, family: Family) -> Asset:
    """A file, or a pipeline's folder or hub id."""
    parts = spec.split("/")
    on_hub = len(parts) == 2 and all(parts) and not Path(spec).expanduser().exists()
    kind = "pipeline" if on_hub and not spec.endswith((".safetensors", ".bin")) else "file"
    return Asset("student.start", spec, kind, None, family.pipeline)  # type: ignore[arg-type]


def misfit_grid(student: FlowStudentConfig, teacher: FlowTeacherConfig) -> Iterator[Remark]:
    """A remark on a published start whose own noise levels the student does not visit.

    Levels of a schedule of shift a are at sigma = a s / (1 + (a - 1) s), s evenly from 1 to 1 / n:
    where students are trained, of Stable Diffusion 3 too, whose stock pipeline spaces otherwise.
    """
    terms = start_terms(student.start)
    if not terms:
        return
    steps = student.presets.get(terms[0], {}).get("steps", len(LEVELS))
    own, there = (
        student.family.static_shift(model)
        for model in (model_of(terms[0], student.presets), teacher.model)
    )
    if own is None or there is None:
        return
    published = [shifted(1 - i / steps, own) for i in range(steps)]
    visited = [shifted((t + 1) / 1000, there) for t in student.levels]
    if all(min(abs(v - p) for p in published) < NEAR for v in visited):
        return
    four = [shifted((t + 1) / 1000, own) for t in LEVELS]
    levels = [round(1000 * unshifted(sigma, there) - 1, 1) for sigma in four]
    said = (
        f"{terms[0]} was made for noise levels of shift {own:g}, and the teacher's schedule has "
        f"shift {there:g}: `levels: {levels}` visits its own"
    )
    yield Remark(said, "levels", is_error="levels" not in student.model_fields_set)


def shifted(s: float, shift: float) -> float:
    """The noise level of an even one."""
    return shift * s / (1 + (shift - 1) * s)


def unshifted(sigma: float, shift: float) -> float:
    """The even level of a noise level."""
    return sigma / (shift - (shift - 1) * sigma)

"""How a pipeline is used as a teacher: its sampler, guidance and memory."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distillkit_diffusers.choices import OffloadName, PredictionType, SolverName, Spacing


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """The settings of a teacher beside its files; fields as in `SDXLTeacherConfig`."""

    solver: SolverName = "ddim"
    steps: int = 8
    spacing: Spacing = "trailing"
    timesteps: tuple[int, ...] | None = None
    timestep_shift: int = 1000
    eta: float = 1.0
    prediction: PredictionType | None = None
    guidance: float = 0.0
    offload: tuple[OffloadName, ...] = ()
    vae_tiling: bool = False

    @classmethod
    def from_config(cls, config: object) -> TeacherOptions:
        """The config's fields of the same names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

"""How a pipeline is used as a teacher, whether its weights are there or not."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from distillkit_diffusers.solvers import make_solver
from distillkit_diffusers.teacher import SDXLTeacher

if TYPE_CHECKING:
    from distillkit_diffusers.words import Offload, Predicts, SolverName, Spacing


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a recipe says of a teacher beside its files; fields as in `SDXLTeacherConfig`."""

    solver: SolverName = "ddim"
    steps: int = 8
    spacing: Spacing = "trailing"
    timesteps: tuple[int, ...] | None = None
    timestep_shift: int = 1000
    eta: float = 1.0
    prediction: Predicts | None = None
    guidance: float = 0.0
    offload: tuple[Offload, ...] = ()
    vae_tiling: bool = False

    @classmethod
    def of(cls, config: object) -> Usage:
        """The fields of the same names."""
        return cls(**{field.name: getattr(config, field.name) for field in fields(cls)})

    def teacher(
        self, pipe: Any, source: str | None = None, variant: str | None = None
    ) -> SDXLTeacher:
        """The pipeline as a teacher; `source` and `variant` as `SDXLTeacher` has them."""
        if pipe.vae.dtype == torch.float16 and pipe.vae.config.force_upcast:
            pipe.vae.to(torch.float32)  # SDXL's own VAE overflows in float16
        if self.prediction:
            pipe.scheduler.register_to_config(prediction_type=self.prediction)
        solver = make_solver(
            self.solver,
            pipe.scheduler.config,
            self.steps,
            self.spacing,
            self.timesteps,
            self.timestep_shift,
            self.eta,
        )
        return SDXLTeacher(
            pipe, solver, self.guidance, source, variant, self.offload, self.vae_tiling
        )

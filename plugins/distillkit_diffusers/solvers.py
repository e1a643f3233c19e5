"""How a teacher goes from x_T to x_0: DDIM, Euler or LCM, each from diffusers.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

if TYPE_CHECKING:
    from distillkit_diffusers.configs import SolverName, Spacing


@dataclass(frozen=True)
class Solver:
    """A scheduler of diffusers with the grid that it is run on."""

    scheduler: Any
    steps: int
    timesteps: tuple[int, ...] | None = None
    """The very timesteps, in place of `steps`."""

    def grid(self, device: Any = "cpu") -> Tensor:
        """Start afresh: the timesteps to visit, falling."""
        if self.timesteps is None:
            self.scheduler.set_timesteps(self.steps, device=device)
        elif type(self.scheduler).__name__ == "LCMScheduler":
            # LCM warns of timesteps outside of its training grid; of 1000 steps, all are inside.
            whole = self.scheduler.config.num_train_timesteps
            self.scheduler.set_timesteps(
                timesteps=list(self.timesteps), original_inference_steps=whole, device=device
            )
        else:
            self.scheduler.set_timesteps(timesteps=list(self.timesteps), device=device)
        return self.scheduler.timesteps

    @torch.no_grad()
    def run(
        self,
        x_T_BCHW: Tensor,
        predict: Callable[[Tensor, Tensor], Tensor],
        generators: Sequence[Generator],
    ) -> Tensor:
        """x_0 from x_T; `predict(x_t_BCHW, t_B)` is the network's output.

        LCM draws picture b's noise from `generators[b]`; the others draw nothing.
        """
        options: dict[str, Any] = {"return_dict": False}
        if type(self.scheduler).__name__ == "LCMScheduler":
            options["generator"] = list(generators)
        timesteps = self.grid(x_T_BCHW.device)
        x_BCHW = x_T_BCHW * self.scheduler.init_noise_sigma
        for t in timesteps:
            x_t_BCHW = self.scheduler.scale_model_input(x_BCHW, t)
            output_BCHW = predict(x_t_BCHW, t.expand(len(x_BCHW)))
            x_BCHW = self.scheduler.step(output_BCHW, t, x_BCHW, **options)[0]
        return x_BCHW


def make_solver(
    name: SolverName,
    schedule: Any,
    steps: int,
    spacing: Spacing = "trailing",
    timesteps: tuple[int, ...] | None = None,
) -> Solver:
    """The solver on the noise schedule of `schedule`, a diffusers scheduler's config."""
    from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler

    if name == "ddim":
        return Solver(scheduler_of(DDIMScheduler, schedule, timestep_spacing=spacing), steps)
    if name == "euler":
        euler = scheduler_of(EulerDiscreteScheduler, schedule, timestep_spacing=spacing)
        return Solver(euler, steps, timesteps)
    return Solver(scheduler_of(LCMScheduler, schedule), steps, timesteps)


def scheduler_of(kind: Any, schedule: Any, **options: Any) -> Any:
    """A scheduler of class `kind` with all that it understands of another's config.

    Latents are never clipped, whatever the config says: their range is not [-1, 1].
    """
    options = {"clip_sample": False, "thresholding": False} | options
    understood = signature(kind.__init__).parameters.keys() - {"self"}
    asked = {**schedule, **options}
    return kind(**{name: asked[name] for name in understood & asked.keys()})

"""Samplers of a teacher, from x_T to x_0: diffusers' schedulers, and our timestep-shifted one.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor

from distillkit.values import sent

if TYPE_CHECKING:
    from distillkit_diffusers.choices import SolverName, Spacing

DETERMINISTIC = ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler")
GRID_STEPS = 4
"""Levels on the grid of a student's roll-out; LCM calls them original inference steps."""


@dataclass(frozen=True)
class Solver:
    """A diffusers scheduler with its timesteps."""

    scheduler: Any
    steps: int
    timesteps: tuple[int, ...] | None = None
    """Explicit timesteps, which override `steps`."""
    eta: float | None = None
    """TCD's share of fresh noise."""

    def grid(self, device: Any = "cpu") -> Tensor:
        """Reset the scheduler; returns the timesteps to visit, descending."""
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

        Picture b's fresh noise comes from `generators[b]`; DDIM, DPM++ and Euler draw nothing.
        """
        options: dict[str, Any] = {"return_dict": False}
        if type(self.scheduler).__name__ not in DETERMINISTIC:
            options["generator"] = list(generators)
        if self.eta is not None:
            options["eta"] = self.eta
        timesteps = self.grid()  # on the CPU, where the schedulers read their tables
        x_BCHW = x_T_BCHW * self.scheduler.init_noise_sigma
        for t in timesteps:
            x_t_BCHW = self.scheduler.scale_model_input(x_BCHW, t)
            output_BCHW = predict(x_t_BCHW, sent(t.expand(len(x_BCHW)), x_BCHW.device))
            x_BCHW = self.scheduler.step(output_BCHW, t, x_BCHW, **options)[0]
        return x_BCHW


def make_solver(
    name: SolverName,
    schedule: Any,
    steps: int,
    spacing: Spacing = "trailing",
    timesteps: tuple[int, ...] | None = None,
    timestep_shift: int = 1000,
    eta: float = 1.0,
) -> Solver:
    """The solver on the noise schedule of `schedule`, a diffusers scheduler's config."""
    import diffusers

    if name == "lcm-shift":
        return Solver(shifted_scheduler(schedule, timestep_shift), steps)
    if name == "lcm":
        return Solver(make_scheduler(diffusers.LCMScheduler, schedule), steps, timesteps)
    if name == "tcd":
        return Solver(make_scheduler(diffusers.TCDScheduler, schedule), steps, eta=eta)
    classes = {
        "ddim": diffusers.DDIMScheduler,
        "dpm++": diffusers.DPMSolverMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "euler-ancestral": diffusers.EulerAncestralDiscreteScheduler,
    }
    scheduler = make_scheduler(classes[name], schedule, timestep_spacing=spacing)
    return Solver(scheduler, steps, timesteps if name == "euler" else None)


def shifted_scheduler(schedule: Any, timestep_shift: int) -> Any:
    """LCM at shifted timesteps, in the four-level grid of a student's roll-out."""
    from distillkit_diffusers.io.timestep_shift_lcm import TimestepShiftLCMScheduler

    return make_scheduler(
        TimestepShiftLCMScheduler,
        schedule,
        original_inference_steps=GRID_STEPS,
        shifted_timestep=timestep_shift,
    )


def stock_scheduler(schedule: Any) -> Any:
    """diffusers' LCM in the same grid; it is given the shifted timesteps by its caller."""
    import diffusers

    return make_scheduler(diffusers.LCMScheduler, schedule, original_inference_steps=GRID_STEPS)


def make_scheduler(scheduler_class: Any, schedule: Any, **options: Any) -> Any:
    """A scheduler of that class, with every option of another one's config that it has too.

    Latents are never clipped, whatever the config says: their range is not [-1, 1].
    """
    options = {"clip_sample": False, "thresholding": False} | options
    accepted = signature(scheduler_class.__init__).parameters.keys() - {"self"}
    given = {**schedule, **options}
    return scheduler_class(**{name: given[name] for name in accepted & given.keys()})

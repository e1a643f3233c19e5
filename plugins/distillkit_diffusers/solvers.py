"""How a teacher goes from x_T to x_0: by diffusers' schedulers, and our shifted one.

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
    from distillkit_diffusers.words import SolverName, Spacing


DETERMINISTIC = ("DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler")


@dataclass(frozen=True)
class Solver:
    """A scheduler of diffusers with the grid that it is run on."""

    scheduler: Any
    steps: int
    timesteps: tuple[int, ...] | None = None
    """The very timesteps, in place of `steps`."""
    eta: float | None = None
    """TCD's share of fresh noise."""

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
            output_BCHW = predict(x_t_BCHW, t.expand(len(x_BCHW)).to(x_BCHW.device))
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

    from distillkit_diffusers.timestep_shift_lcm import TimestepShiftLCMScheduler

    if name == "lcm-shift":
        shift = {"shifted_timestep": timestep_shift, "original_inference_steps": 4}
        return Solver(scheduler_of(TimestepShiftLCMScheduler, schedule, **shift), steps)
    if name == "lcm":
        return Solver(scheduler_of(diffusers.LCMScheduler, schedule), steps, timesteps)
    if name == "tcd":
        return Solver(scheduler_of(diffusers.TCDScheduler, schedule), steps, eta=eta)
    kinds = {
        "ddim": diffusers.DDIMScheduler,
        "dpm++": diffusers.DPMSolverMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
        "euler-ancestral": diffusers.EulerAncestralDiscreteScheduler,
    }
    made = scheduler_of(kinds[name], schedule, timestep_spacing=spacing)
    return Solver(made, steps, timesteps if name == "euler" else None)


def scheduler_of(kind: Any, schedule: Any, **options: Any) -> Any:
    """A scheduler of class `kind` with all that it understands of another's config.

    Latents are never clipped, whatever the config says: their range is not [-1, 1].
    """
    options = {"clip_sample": False, "thresholding": False} | options
    understood = signature(kind.__init__).parameters.keys() - {"self"}
    asked = {**schedule, **options}
    return kind(**{name: asked[name] for name in understood & asked.keys()})

"""The student: its grid of noise levels, its roll-out of k steps, its EMA and its snapshots.

Legend: B batch, C channels, H, W latent cells, S re-noisings of a roll-out (steps - 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distillkit.configs import LEVELS, Sampler
from distillkit.errors import UserError
from distillkit.training.models.distributed import aside, copy_into, unwrap

if TYPE_CHECKING:
    from distillkit.configs import StudentConfig
    from distillkit.contracts import StudentNetwork
    from distillkit.noising import NoiseSchedule
    from distillkit.values import Condition

MAX_STEPS = 4
"""Steps of the longest roll-out."""


@dataclass(frozen=True)
class Grid:
    """The student's own grid: the noise levels of a roll-out, where the network is run for each,
    and how x_t goes from one to the next."""

    timestep_shift: int = 1000
    """The network is run at t * shift / 1000, rounded down where t is whole."""
    levels: Sequence[float] = LEVELS
    """Noise levels of the longest roll-out, falling; shorter ones skip some, evenly (as LCM does
    with 4 original steps)."""
    sampler: Sampler = "renoise"
    """Between steps, x_0-hat with fresh noise (consistency models), or with the noise that the
    network sees in x_t: an Euler step along the flow, or DDIM's on other schedules."""

    def visits(self, steps: int) -> list[tuple[float, float]]:
        """Of each step: the noise level, and the timestep at which the network is run."""
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(f"a roll-out has 1 to {MAX_STEPS} steps, not {steps}")
        places = [self.levels[i * len(self.levels) // steps] for i in range(steps)]
        return [(t, shifted(t, self.timestep_shift)) for t in places]


def noise_grid(steps: int) -> list[float]:
    """Noise levels of the usual grid: 999 | 999,499 | 999,749,499 | 999,749,499,249."""
    return [t for t, _ in Grid().visits(steps)]


def shifted(t: float, shift: int) -> float:
    """t' = floor(t * shift / 1000): where the network is run for noise level t. Fractional levels
    are not rounded."""
    return t * shift // 1000 if isinstance(t, int) else t * shift / 1000


@dataclass
class Student:
    """A network with its grid; the weights mean nothing without the timestep shift in it."""

    network: StudentNetwork
    schedule: NoiseSchedule
    timestep_shift: int
    levels: Sequence[float] = LEVELS
    sampler: Sampler = "renoise"
    gradient_steps: int = 1
    """How many of a roll-out's last steps a gradient of x_0-hat reaches."""

    def __post_init__(self) -> None:
        for t, run_at in self.grid.visits(MAX_STEPS):
            if not self.schedule.defines_x_0(run_at, self.network.prediction):
                raise UserError(
                    f"student.timestep_shift: {self.timestep_shift} runs the network at timestep "
                    f"{run_at} for noise level {t}, where this schedule leaves no signal (zero "
                    "terminal SNR) and a network that predicts epsilon says nothing of x_0; take "
                    "a smaller shift"
                )

    @staticmethod
    def of(network: StudentNetwork, schedule: NoiseSchedule, config: StudentConfig) -> Student:
        """The student that a recipe's part describes."""
        fields = (config.timestep_shift, config.levels, config.sampler, config.gradient_steps)
        return Student(network, schedule, *fields)

    @property
    def grid(self) -> Grid:
        """The grid of its roll-outs."""
        return Grid(self.timestep_shift, self.levels, self.sampler)

    def x_0(self, x_t_BCHW: Tensor, run_at: float, cond: Condition) -> Tensor:
        """The network's prediction of x_0 from x_t: it is run, and its output converted, at the
        timestep `run_at`."""
        t_B = torch.full((len(x_t_BCHW),), run_at, device=x_t_BCHW.device)
        output_BCHW = self.network(x_t_BCHW, t_B, cond)
        return self.schedule.to_x_0(output_BCHW, x_t_BCHW, t_B, self.network.prediction)

    def rollout(
        self, x_T_BCHW: Tensor, cond: Condition, steps: int, renoise_SBCHW: Tensor
    ) -> Tensor:
        """x_0-hat after `steps` steps; gradients reach the last `gradient_steps` (section 3.5).

        Between steps x_0-hat is noised to the grid's next level, unshifted, with
        `renoise_SBCHW[i]`; the Euler sampler draws nothing.
        """
        visits = self.grid.visits(steps)
        x_BCHW = x_T_BCHW
        for i, (t, run_at) in enumerate(visits[:-1]):
            reached = steps - i <= self.gradient_steps
            with torch.set_grad_enabled(reached and torch.is_grad_enabled()):
                x_0_BCHW = self.x_0(x_BCHW, run_at, cond)
                eps_BCHW = renoise_SBCHW[i]
                if self.sampler == "euler":
                    eps_BCHW = self.schedule.to_eps(x_0_BCHW, x_BCHW, _full(t, x_BCHW))
                x_BCHW = self.schedule.add(x_0_BCHW, eps_BCHW, _full(visits[i + 1][0], x_BCHW))
            last_without = i + 1 == steps - self.gradient_steps
            if last_without and _autocasts(x_BCHW.device.type):
                # Autocast keeps 16-bit copies of weights; those made under no_grad have no
                # history, and the next step would train nothing (fixed in later torch).
                torch.clear_autocast_cache()
        return self.x_0(x_BCHW, visits[-1][1], cond)

    def load_snapshot(self, path: Path) -> None:
        """Load the weights of a snapshot file. Raises `UserError`."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            load_weights(unwrap(self.network.module), load_file(path))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path} can't be read: {error}") from None
        except (KeyError, RuntimeError) as error:
            raise UserError(
                f"{path} holds the weights of another network than the recipe's student: {error}"
            ) from None

    @contextmanager
    def weights_restored(self) -> Iterator[None]:
        """Inside, other weights may be loaded; afterwards the network has its own, bit for bit."""
        with weights_restored(unwrap(self.network.module)):
            yield


def _autocasts(device: str) -> bool:
    """Whether autocast is on; a plan's device has none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _full(t: float, like_BCHW: Tensor) -> Tensor:
    return torch.full((len(like_BCHW),), t, device=like_BCHW.device)


class EMA:
    """Exponential moving average of a module's parameters, in float32.

    Its decay grows with its age, so that the run's first weights are soon forgotten: after n
    updates it is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float, device: Any = None) -> None:
        """`device`: where the average is kept; None keeps it beside the weights."""
        self.decay = decay
        self.updates = torch.zeros((), dtype=torch.int64)
        own = dict(module.named_parameters())
        self.weights = {name: p.detach().float().clone() for name, p in own.items()}
        if device is not None:
            self.weights = {name: average.to(device) for name, average in self.weights.items()}
        # Kept as lists: to find the parameters in the module takes as long as the arithmetic.
        self._averages, self._own = list(self.weights.values()), list(own.values())

    @torch.no_grad()
    def update(self) -> None:
        """ema <- d * ema + (1 - d) * weights, d the decay at this age."""
        age = int(self.updates)
        decay = min(self.decay, (1 + age) / (10 + age))
        pairs = zip(self._own, self._averages, strict=True)
        own = [p.to(average.device, torch.float32) for p, average in pairs]
        get_ema_multi_avg_fn(decay)(self._averages, own, None)
        self.updates += 1

    @contextmanager
    def applied_to(self, module: nn.Module) -> Iterator[None]:
        """Inside, the module has the averaged weights; afterwards its own again, bit for bit."""
        with weights_restored(module):
            load_weights(module, self.weights)
            yield


@contextmanager
def weights_restored(module: nn.Module) -> Iterator[None]:
    """Inside, other weights may be loaded; afterwards the module has its own, bit for bit."""
    own = {name: aside(p) for name, p in module.named_parameters()}
    try:
        yield
    finally:
        load_weights(module, own)


@torch.no_grad()
def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the module's parameters of the same names; all must be there."""
    for name, p in module.named_parameters():
        copy_into(p, weights[name])

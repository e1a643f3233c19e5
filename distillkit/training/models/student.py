"""The student: its shifted timestep, its roll-out of k steps, its EMA and its snapshots.

Legend: B batch, C channels, H, W latent cells, S re-noisings of a roll-out (steps - 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from distillkit.errors import UserError
from distillkit.training.models.distributed import copy_into, unwrap

if TYPE_CHECKING:
    from distillkit.contracts import StudentNetwork
    from distillkit.noising import NoiseSchedule
    from distillkit.values import Condition

MAX_STEPS = 4
"""The grid has four levels; shorter roll-outs skip some (as LCM does with 4 original steps)."""


def noise_grid(steps: int, levels: int = 1000) -> list[int]:
    """Noise levels that a roll-out visits: 999 | 999,499 | 999,749,499 | 999,749,499,249."""
    if not 1 <= steps <= MAX_STEPS:
        raise ValueError(f"a roll-out has 1 to {MAX_STEPS} steps, not {steps}")
    places = [levels * (MAX_STEPS - i) // MAX_STEPS - 1 for i in range(MAX_STEPS)]
    return [places[i * MAX_STEPS // steps] for i in range(steps)]


def shifted(t: int, shift: int) -> int:
    """t' = floor(t * shift / 1000): where the network is run for noise level t."""
    return t * shift // 1000


@dataclass
class Student:
    """A network with its timestep shift; the weights mean nothing without it."""

    network: StudentNetwork
    schedule: NoiseSchedule
    timestep_shift: int

    def __post_init__(self) -> None:
        first = shifted(noise_grid(1, len(self.schedule))[0], self.timestep_shift)
        if not self.schedule.defines_x_0(first, self.network.prediction):
            raise UserError(
                f"student.timestep_shift: {self.timestep_shift} runs the network at timestep "
                f"{first}, where this schedule leaves no signal (zero terminal SNR) and a network "
                "that predicts epsilon says nothing of x_0; take a smaller shift"
            )

    def x_0(self, x_t_BCHW: Tensor, t: int, cond: Condition) -> Tensor:
        """The network's prediction of x_0 from x_t: it is run, and its output converted, at the
        shifted timestep."""
        t_B = torch.full((len(x_t_BCHW),), shifted(t, self.timestep_shift), device=x_t_BCHW.device)
        output_BCHW = self.network(x_t_BCHW, t_B, cond)
        return self.schedule.to_x_0(output_BCHW, x_t_BCHW, t_B, self.network.prediction)

    def rollout(
        self, x_T_BCHW: Tensor, cond: Condition, steps: int, renoise_SBCHW: Tensor
    ) -> Tensor:
        """x_0-hat after `steps` steps; gradients reach the last step alone (section 3.5).

        Between steps x_0-hat is noised to the next level of the unshifted grid with
        `renoise_SBCHW[i]`.
        """
        grid = noise_grid(steps, len(self.schedule))
        x_BCHW = x_T_BCHW
        for i in range(steps - 1):
            with torch.no_grad():
                x_0_BCHW = self.x_0(x_BCHW, grid[i], cond)
                t_B = torch.full((len(x_BCHW),), grid[i + 1], device=x_BCHW.device)
                x_BCHW = self.schedule.add(x_0_BCHW, renoise_SBCHW[i], t_B)
        if steps > 1 and torch.is_autocast_enabled(x_BCHW.device.type):
            # Autocast keeps 16-bit copies of weights; those made under no_grad have no history, and
            # the last step would train nothing (fixed in later versions of torch).
            torch.clear_autocast_cache()
        return self.x_0(x_BCHW, grid[-1], cond)

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


class EMA:
    """Exponential moving average of a module's parameters, in float32.

    Its decay grows with its age, so that the run's first weights are soon forgotten: after n
    updates it is min(decay, (1 + n) / (10 + n)).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = torch.zeros((), dtype=torch.int64)
        own = dict(module.named_parameters())
        self.weights = {name: p.detach().float().clone() for name, p in own.items()}
        # Kept as lists: to find the parameters in the module takes as long as the arithmetic.
        self._averages, self._own = list(self.weights.values()), list(own.values())

    @torch.no_grad()
    def update(self) -> None:
        """ema <- d * ema + (1 - d) * weights, d the decay at this age."""
        age = int(self.updates)
        decay = min(self.decay, (1 + age) / (10 + age))
        get_ema_multi_avg_fn(decay)(self._averages, [p.float() for p in self._own], None)
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
    own = {name: p.detach().clone() for name, p in module.named_parameters()}
    try:
        yield
    finally:
        load_weights(module, own)


@torch.no_grad()
def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the module's parameters of the same names; all must be there."""
    for name, p in module.named_parameters():
        copy_into(p, weights[name])

"""What stands in for a run's surroundings in a dry run: accelerator, cache, pictures, a denoiser.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.memory.simulated_cuda import SimulatedCUDA
from distillkit.memory.tracker import MemoryTracker
from distillkit.values import Condition

META = torch.device("meta")


@dataclass
class FakeAccelerator:
    """What a train state asks of an accelerator, for one process on the meta device."""

    cuda: SimulatedCUDA
    precision: str
    device: Any = META
    process_index: int = 0
    num_processes: int = 1

    def prepare(self, module: nn.Module) -> nn.Module:
        """The module as it is: one process needs no wrapper."""
        return module

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision."""
        with self.cuda.autocast(self.precision):
            yield

    def backward(self, loss: Tensor, gradient: Tensor | None = None) -> None:
        """Gradients."""
        self.cuda.backward(loss, gradient)


@dataclass
class FakeCache:
    """Stands in for a cache of samples that is filled."""

    shape: tuple[int, int, int]
    condition: Condition | None

    def x_0(self, ids: Sequence[int]) -> Tensor:
        """Samples of no values."""
        return torch.empty(len(ids), *self.shape, device=META)

    def conditions(self, ids: Sequence[int]) -> Condition | None:
        """Conditions, where the cache keeps them."""
        return self.condition


class FakePictures(list[str]):
    """Stands in for a prompt source with pictures, of which none is read."""

    def images(self, indices: Sequence[int], height: int, width: int) -> Tensor:
        """Pictures of no values."""
        return torch.empty(len(indices), 3, height, width, device=META)

    def digest(self) -> str:
        """Nothing is stored."""
        return ""


class CountOnce:
    """A denoiser whose calls after the first are not worked out: they cost what the first did."""

    def __init__(self, denoiser: Any, tracker: MemoryTracker, label: str) -> None:
        self.denoiser, self.tracker, self.label = denoiser, tracker, label
        self.module, self.prediction = denoiser.module, denoiser.prediction
        self._costs: dict[torch.Size, int] = {}

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        """The first of each shape goes through the network."""
        cost = self._costs.get(x_t_BCHW.shape)
        if cost is not None and not torch.is_grad_enabled():
            self.tracker.flops[self.label] += cost
            return torch.empty_like(x_t_BCHW)
        before = self.tracker.flops[self.label]
        with self.tracker.label(self.label):
            output: Tensor = self.denoiser(x_t_BCHW, t_B, cond)
        self._costs[x_t_BCHW.shape] = self.tracker.flops[self.label] - before
        return output

"""A world of 8x8 latents in plain torch: a formula for a teacher, networks of one convolution."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distillkit.configs import BackboneConfig, MetricsConfig, StudentConfig, TeacherConfig
from distillkit.noising import NoiseSchedule
from distillkit.recipe.schema import AdamWConfig, OptimConfig, Recipe, RunConfig, StudentAdamWConfig
from distillkit.values import Condition, Window

SHAPE = (4, 8, 8)


def sdxl_schedule() -> NoiseSchedule:
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return NoiseSchedule((1 - beta).cumprod(0))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(4, 8, 3, padding=1)
        self.outer = nn.Conv2d(8, 4, 3, padding=1)
        self.told = nn.Linear(2, 8)

    def forward(self, x: Tensor, t: Tensor, told: Tensor) -> Tensor:
        shift = self.told(told) + (t / 1000).view(-1, 1)
        return self.outer(torch.tanh(self.inner(x) + shift[:, :, None, None]))


class Network:
    prediction: Any = "epsilon"

    def __init__(self, seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.module: nn.Module = Net()

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        return self.module(x_t_BCHW, t_B, cond.tensors["told"])

    def publish(self, folder: Path, timestep_shift: int) -> None:
        folder.mkdir(parents=True)
        (folder / "shift.txt").write_text(str(timestep_shift))


class WorldTeacher:
    """x_0 = tanh(x_T) / 2 + what was told: easy to compute, different for every prompt."""

    latent_shape = SHAPE
    schedule = sdxl_schedule()

    def __init__(self) -> None:
        self.denoiser = Network(seed=1)

    def encode(self, prompts: Sequence[str]) -> Condition:
        rows = [list(hashlib.sha256(p.encode()).digest()[:2]) for p in prompts]
        return Condition({"told": torch.tensor(rows).float() / 255})

    def null(self, count: int) -> Condition:
        return Condition({"told": torch.zeros(count, 2)})

    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Any) -> Tensor:
        return x_T_BCHW.tanh() / 2 + cond.tensors["told"].mean(1)[:, None, None, None]

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        return (x_0_BCHW[:, :3] / 2 + 0.5).clamp(0, 1)

    def to(self, device: Any) -> None:
        self.denoiser.module.to(device)

    def modules(self) -> Sequence[nn.Module]:
        return [self.denoiser.module]


class WorldBackbone:
    channels = (8, 4)

    def __init__(self) -> None:
        self.network = Network(seed=2)

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        net: Any = self.network.module
        inner = torch.tanh(net.inner(x_t_BCHW) + net.told(cond.tensors["told"])[:, :, None, None])
        return [inner, net.outer(inner)]

    def modules(self) -> Sequence[nn.Module]:
        return [self.network.module]


class WorldMetrics:
    def prompts(self, count: int, seed: int) -> list[str]:
        return [f"held out {seed} {i}" for i in range(count)]

    def figures(
        self, pictures_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> dict[str, float]:
        gap = (pictures_B3HW.mean(0) - teacher_B3HW.mean(0)).square().mean()
        return {"frechet_teacher": float(gap)}


class WorldTeacherConfig(TeacherConfig):
    """A formula."""

    type: Literal["world"] = "world"

    def build(self) -> Any:
        return WorldTeacher()


class WorldStudentConfig(StudentConfig):
    """Two convolutions."""

    type: Literal["world"] = "world"

    def build(self, teacher: Any) -> Any:
        return Network(seed=3)


class WorldBackboneConfig(BackboneConfig):
    """Two levels."""

    type: Literal["world"] = "world"

    def build(self, teacher: Any) -> Any:
        backbone = WorldBackbone()
        backbone.network.module.requires_grad_(False)
        return backbone


class WorldMetricsConfig(MetricsConfig):
    """A distance of means."""

    type: Literal["world"] = "world"

    def build(self) -> Any:
        return WorldMetrics()


def world_recipe(**changes: Any) -> Recipe:
    """A NitroFusion of 24 heads that runs an iteration in milliseconds."""
    heads = {"timesteps": [10, 500], "heads_per_slot": 2, "width": 16, "depth": 1}
    parts: dict[str, Any] = {
        "prompts": {"type": "list", "prompts": [f"prompt {i}" for i in range(7)]},
        "teacher": WorldTeacherConfig(),
        "student": WorldStudentConfig(timestep_shift=500, ema=0.9),
        "backbone": WorldBackboneConfig(),
        "pool": {"type": "dynamic", "zero_init": False} | heads,
        "refresh": {"type": "random", "fraction": 0.1},
        "losses": [{"type": "hinge"}],
        "refinement": {"type": "bottom-up", "stages": {1: 8, 2: 6, 4: 6}},
        "optim": OptimConfig(
            student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2, weight_decay=0.1)
        ),
        "run": RunConfig(batch=4, checkpoint_every=10),
    }
    return Recipe(**parts | changes)

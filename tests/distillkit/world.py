"""The world that the core's tests train in: the examples' 8x8 latents under NitroFusion's pool.

`distillkit.examples` bring teacher, student, backbone and metrics. What they have none of comes
from NitroFusion: several views and noise levels, heads that rest, refreshes at random, stages.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from distillkit import api, testing
from distillkit.configs import ComponentConfig, LossConfig
from distillkit.examples.teacher import ExampleTeacher, ExampleTeacherConfig
from distillkit.noising import NoiseSchedule
from distillkit.recipe.schema import AdamWConfig, OptimConfig, Recipe, RunConfig, StudentAdamWConfig
from distillkit.registry.entry_points import Installed
from distillkit.registry.registry import Origin
from distillkit.training.callbacks import Callback
from distillkit.training.metrics import StepMetrics
from distillkit.training.schedule import IterationSpec
from distillkit.training.state import state_tensors
from distillkit.training.trainer import Trainer
from distillkit.values import HeadLogits

Term = Callable[[Any], Any]
"""A loss's term for one player: batch -> scalar, or whatever a wrong part returns."""

STAGES = {1: 8, 2: 6, 4: 6}
"""Iterations by length of the roll-out: 20 in all."""


def world_recipe(**changes: Any) -> Recipe:
    """24 heads on two levels, in three views at two noise levels; milliseconds an iteration."""
    heads = {"timesteps": [10, 500], "heads_per_slot": 2, "width": 16, "depth": 1}
    fields: dict[str, Any] = {
        "prompts": {"type": "list", "prompts": [f"prompt {i}" for i in range(7)]},
        "pool": {"type": "dynamic", "zero_init": False} | heads,
        "refresh": {"type": "random", "fraction": 0.1},
        "losses": [{"type": "hinge"}],
        "refinement": {"type": "bottom-up", "stages": STAGES},
        "optim": OptimConfig(
            student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2, weight_decay=0.1)
        ),
        "metrics": None,
        "run": RunConfig(batch=4, checkpoint_every=10),
    }
    return testing.recipe(**fields | changes)


def world_teacher() -> ExampleTeacher:
    """The world's teacher; its network is the student's first one too."""
    return ExampleTeacherConfig().build()


def world_schedule() -> NoiseSchedule:
    """1000 levels, scaled-linear from 0.00085 to 0.012: that of most latent diffusion models."""
    return world_teacher().schedule


def trainer(recipe: Recipe, folder: Path, callback: Callback | None = None) -> Trainer:
    """A trainer of this recipe on the CPU, as `distillkit.train` makes one."""
    return api.prepare(recipe, folder, callback, accelerator=Accelerator(cpu=True))


def iteration_spec(**changes: Any) -> IterationSpec:
    """A joint iteration of one step, with no loss."""
    fields: dict[str, Any] = {
        "phase": "1-step",
        "losses": [],
        "trains_student": True,
        "trains_critic": True,
        "steps": 1,
        "optim": StudentAdamWConfig(lr=1e-3),
        "resets_optimizer": False,
        "ends_stage": False,
    }
    return IterationSpec(**fields | changes)


def head_logits(view: str, t: int, *, wins: int, head: int = 0, critic: str = "") -> HeadLogits:
    """Logits of ten pictures, of which the head ranks real above fake in the first `wins`."""
    gap_B = torch.tensor([1.0] * wins + [-1.0] * (10 - wins))
    return HeadLogits(
        view=view,
        level=0,
        head=head,
        t_B=torch.full((10,), t),
        critic=critic,
        real_BK=gap_B[:, None],
        fake_BK=torch.zeros(10, 1),
    )


def everything(of: Trainer) -> dict[str, Tensor]:
    """A copy of all that a checkpoint of this moment would hold, by `part.name`."""
    saved = state_tensors(of.state, of.monitor)
    return {f"{part}.{k}": v.detach().clone() for part, ts in saved.items() for k, v in ts.items()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    different = [name for name in one if not torch.equal(one[name], other[name])]
    assert not different, f"{len(different)} of {len(one)} differ: {different[:5]}"


class PlainNetwork(torch.nn.Conv2d):
    """torch.compile leaves torch's own classes alone, and compiles this one."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW)


class PlainNetworkTeacherConfig(ExampleTeacherConfig):
    """The world's teacher, with a network that can be compiled."""

    def build(self) -> ExampleTeacher:
        teacher = super().build()
        teacher.denoiser.module.__class__ = PlainNetwork
        return teacher


class StopAfter(Callback):
    """Sends a signal to this process after an iteration in the middle of a run."""

    def __init__(self, iterations: int, number: int) -> None:
        self.iterations, self.number = iterations, number

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        if i + 1 == self.iterations:
            os.kill(os.getpid(), self.number)


class MeanGuess:
    """A loss with a network of its own that learns the mean of the student's pictures."""

    def __init__(self) -> None:
        self.bias = torch.nn.Linear(1, 1)
        torch.nn.init.zeros_(self.bias.weight)
        torch.nn.init.zeros_(self.bias.bias)

    def critic(self, batch: Any) -> Tensor:
        guess = self.bias(batch.fake_BCHW.new_ones(1))
        return (batch.fake_BCHW.detach().mean() - guess).square().mean()

    def student(self, batch: Any) -> Tensor:
        return (batch.fake_BCHW - batch.real_BCHW).square().mean()

    def after_critic_step(self, heads: Any) -> None:
        pass

    def modules(self) -> list[torch.nn.Module]:
        return [self.bias]


class MeanGuessConfig(LossConfig):
    """For tests of losses that own a network, which no example does."""

    type: Literal["mean-guess"] = "mean-guess"

    def build(self, teacher: Any, student: Any) -> Any:
        return MeanGuess()


class MadeUpLoss:
    """Two functions of the batch; a player without one has no term."""

    def __init__(self, critic: Term, student: Term) -> None:
        self.critic, self.student = critic, student

    def after_critic_step(self, heads: Any) -> None:
        pass

    def modules(self) -> list[torch.nn.Module]:
        return []


class MadeUpLossConfig(LossConfig):
    """For tests of what the core does with a loss's terms."""

    type: Literal["made-up"] = "made-up"


def made_up_loss(critic: Term = lambda _: None, student: Term = lambda _: None) -> LossConfig:
    """The config of a loss that is these two functions."""

    class Config(MadeUpLossConfig):
        def build(self, teacher: Any, network: Any) -> Any:
            return MadeUpLoss(critic, student)

    return Config()


THEIRS = "of plugin 'theirs' (distillkit-theirs 2.1)"
"""How a sentence names the plugin of `brought_by_theirs`."""


def brought_by_theirs(monkeypatch: pytest.MonkeyPatch, *parts: ComponentConfig) -> None:
    """Let the parts be those of another package's plugin, for sentences that name it."""
    found = Installed()
    for config in {type(part) for part in parts}:
        found.registry.add(config, Origin("theirs", "distillkit-theirs", "2.1"))
    monkeypatch.setattr("distillkit.training.build.installed", lambda: found)

"""Alternating updates: the student learns from heads that have just been stepped, as by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from distillkit.configs import BackboneConfig, PoolConfig
from distillkit.randomness import generator
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    RunConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.training.step import make_batch
from distillkit.training.trainer import Trainer
from distillkit.values import DrawnHead, JudgedView, Panel, View
from tests.distillkit.world import (
    everything,
    made_up_loss,
    trainer,
    world_recipe,
    world_schedule,
)

WHOLE = View("whole", crop=1.0, conditional=True)


class Slope(nn.Module):
    """Logit of a cell: a weight, 0 at first, times the mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, map_BChw: Tensor) -> Tensor:
        return self.weight * map_BChw.mean(1).flatten(1)


class OnePool:
    """One head, at t* = 0."""

    def __init__(self) -> None:
        self.heads = nn.ModuleList([Slope()])

    def draw(self, batch: int, generator: Any) -> Panel:
        t_B = torch.zeros(batch, dtype=torch.int64)
        return Panel((JudgedView(WHOLE, t_B, (DrawnHead(0, 0),)),))

    def reset(self, heads: Sequence[int], generator: Any) -> None:
        pass


class OnePoolConfig(PoolConfig):
    type: Literal["one"] = "one"

    def build(self, channels: Any, seed: int) -> Any:
        return OnePool()


class Mirror:
    """Its map is what it is given."""

    channels = (4,)

    def features(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Any, window: Any) -> list[Tensor]:
        return [x_t_BCHW]

    def modules(self) -> list[nn.Module]:
        return []


class MirrorConfig(BackboneConfig):
    type: Literal["mirror"] = "mirror"

    def build(self, teacher: Any) -> Any:
        return Mirror()


def optim(updates: str, **fields: Any) -> OptimConfig:
    student, critic = StudentAdamWConfig(lr=1e-3), AdamWConfig(lr=0.5)
    return OptimConfig(student=student, critic=critic, updates=updates, **fields)


def slope_run(folder: Path, updates: str, seen: list[Any]) -> Trainer:
    """A run of 4 pictures an iteration whose student's term keeps the logits that it sees."""

    def critic(batch: Any) -> Tensor:
        [logits] = batch.critic_logits()
        return logits.fake_BK.mean() - logits.real_BK.mean()

    def student(batch: Any) -> Tensor:
        seen[:] = batch.student_logits()
        return -seen[0].fake_BK.mean()

    return trainer(
        world_recipe(
            backbone=MirrorConfig(),
            pool=OnePoolConfig(),
            refresh=None,
            losses=[made_up_loss(critic, student)],
            optim=optim(updates),
        ),
        folder,
    )


def x_t_mean(x_0_BCHW: Tensor) -> Tensor:
    """The mean map (B, K) of the run's first four pictures, noised to t* = 0 as in the run."""
    a = world_schedule().alpha_bar_T[0]
    draws = []
    for position in range(4):
        rng = generator(0, "look", position, 0)
        for _ in ("top", "left"):
            torch.randint(1, (), generator=rng)
        draws.append(torch.randn((4, 8, 8), generator=rng))
    return (a.sqrt() * x_0_BCHW + (1 - a).sqrt() * torch.stack(draws)).mean(1).flatten(1)


def test_the_students_logits_come_from_the_stepped_head(tmp_path: Path) -> None:
    """D = w m, m the mean over channels, w = 0 at first. The critic minimises w (fake - real).

    Adam's first step is lr = 0.5 long, against the sign of fake - real. Then the student's term
    is -w fake, and its gradient at each of the 4 * 256 values of x_0-hat -w sqrt(a) / 1024: of
    norm 0.5 sqrt(a) / 32, where simultaneous updates have w = 0 and no gradient at all.
    """
    seen: list[Any] = []
    run = slope_run(tmp_path, "alternating", seen)
    with torch.no_grad():
        batch = make_batch(run.state, run.schedule.spec(0), 0, 0, [])
        real_BK, fake_BK = x_t_mean(batch.real_BCHW), x_t_mean(batch.fake_BCHW)
    w = -0.5 * float((fake_BK.mean() - real_BK.mean()).sign())
    metrics = run.step(0)
    [critic] = run.state.critics
    assert critic.pool.heads[0].weight.item() == pytest.approx(w, rel=1e-4)
    assert metrics.critic == 0
    assert metrics.student == pytest.approx(-w * float(fake_BK.mean()), rel=1e-3)
    a = float(world_schedule().alpha_bar_T[0])
    assert metrics.pulls == pytest.approx({"made-up": 0.5 * a**0.5 / 32}, rel=1e-3)
    assert (metrics.norm("critic") or 0) > 0
    assert (metrics.norm("student") or 0) > 0
    torch.testing.assert_close(seen[0].real_BK, w * real_BK, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(seen[0].fake_BK, w * fake_BK, rtol=1e-3, atol=1e-5)
    assert not seen[0].real_BK.requires_grad

    before = slope_run(tmp_path, "simultaneous", seen).step(0)
    assert before.pulls == {"made-up": 0.0}
    assert before.norm("student") == 0


def test_critics_learn_the_same_and_the_backbone_runs_no_more_often(tmp_path: Path) -> None:
    after, passes = [], []
    for updates in ("simultaneous", "alternating"):
        run = trainer(world_recipe(optim=optim(updates)), tmp_path)
        [critic] = run.state.critics
        inner, calls = critic.backbone.features, []

        def counted(*args: Any, inner: Any = inner, calls: list[int] = calls) -> Any:
            calls.append(1)
            return inner(*args)

        critic.backbone.features = counted  # type: ignore[method-assign]
        run.step(0)
        after.append(everything(run))
        passes.append(len(calls))
    assert passes[0] == passes[1]
    one, other = after
    # Rounded otherwise, since critics that learn alone see both players in one call; AdamW's first
    # step would make a rate of a gradient that rounds to nothing.
    moments = [name for name in one if "critic-optimizer" in name and "exp_avg" in name]
    assert moments
    for name in moments:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-6)
    student = [name for name in one if name.startswith("student.")]
    assert not any(torch.equal(one[name], other[name]) for name in student)


def test_updates_alternate_where_both_players_train(tmp_path: Path) -> None:
    """3 + 2 iterations of warm-up; then the student trains in every second iteration."""
    warmup = WarmupConfig(student=3, losses=[{"type": "regression"}], critic=2)
    recipe = world_recipe(warmup=warmup, optim=optim("alternating", critic_updates=2))
    run = trainer(recipe, tmp_path)
    specs = [run.schedule.spec(i) for i in range(11)]
    assert [i for i, spec in enumerate(specs) if spec.alternates] == [6, 8, 10]
    assert [spec.first_players for spec in specs[2:7]] == [
        ("student",),
        *[("critic",)] * 4,
    ]
    run.train()


def test_accumulation_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ValidationError,
        match=r"updates: needs `run\.accumulate: 1`: else the maps of all micro-batches would be",
    ):
        world_recipe(optim=optim("alternating"), run=RunConfig(batch=2, accumulate=2))

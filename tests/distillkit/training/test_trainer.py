"""A whole run: it stops and resumes bit for bit, and stops by itself before NaN spreads."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from distillkit import api
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    SamplesConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.runs.folder import RunFolder, read_log
from distillkit.training.build import build_parts
from distillkit.training.callbacks import Stopped
from distillkit.training.metrics import Diverged
from distillkit.training.state import published_weights
from tests.distillkit.world import (
    MeanGuessConfig,
    StopAfter,
    assert_same,
    everything,
    trainer,
    world_recipe,
)


def recipe_with_every_phase() -> Recipe:
    warmup = WarmupConfig(student=3, losses=[{"type": "regression"}], critic=2)
    # Stopped after iteration 9, it lacks samples that are still to be used: 2 iterations' in 6.
    return world_recipe(warmup=warmup, samples=SamplesConfig(uses=3, buffer=2))


def recipe_without_critics() -> Recipe:
    """The loss owns the only network that trains beside the student."""
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), aux=AdamWConfig(lr=0.5), critic_updates=2
    )
    losses = [MeanGuessConfig()]
    return world_recipe(losses=losses, optim=optim, pool=None, backbone=None, refresh=None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("make_recipe", [recipe_with_every_phase, recipe_without_critics])
def test_stopped_and_resumed_run_equals_unbroken_run_bit_for_bit(
    tmp_path: Path, make_recipe: Any, number: int
) -> None:
    recipe = make_recipe()
    whole = trainer(recipe, tmp_path / "whole")
    whole.train()
    broken = trainer(recipe, tmp_path / "broken", StopAfter(9, number))
    with pytest.raises(Stopped, match="after iteration 9"):
        broken.train()
    resumed = trainer(recipe, tmp_path / "broken")
    resumed.train(resume=True)
    assert_same(everything(whole), everything(resumed))
    a, b = (read_log(tmp_path / name / "log.jsonl") for name in ("whole", "broken"))
    assert [r | {"seconds": 0} for r in a] == [r | {"seconds": 0} for r in b]
    for name in ("start", "1-step", "2-step", "4-step"):
        files = [RunFolder(tmp_path / f).snapshot(name).read_bytes() for f in ("whole", "broken")]
        assert files[0] == files[1]


def test_a_signal_while_the_loop_looks_for_one_is_saved_before_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look finds none and every later one does: one look decides of both."""
    looks: list[int] = []

    @contextmanager
    def signals() -> Iterator[Callable[[], bool]]:
        yield lambda: looks.append(1) or len(looks) > 1  # type: ignore[func-returns-value]

    monkeypatch.setattr("distillkit.training.trainer._signals", signals)
    run = trainer(world_recipe(), tmp_path)
    with pytest.raises(Stopped) as stopped:
        run.train()
    assert run.checkpoints.iterations() == [stopped.value.iteration]


def test_nan_stops_the_run_before_it_reaches_the_weights(tmp_path: Path) -> None:
    run = trainer(world_recipe(run=RunConfig(batch=4, checkpoint_every=5)), tmp_path)
    teacher: Any = run.parts.teacher
    sample, calls = teacher.sample, []

    def poisoned(x_T: Tensor, cond: Any, generators: Any) -> Tensor:
        calls.append(1)
        return sample(x_T, cond, generators) * (float("nan") if len(calls) > 12 else 1)

    teacher.sample = poisoned
    with pytest.raises(Diverged, match=r"critic's loss is nan.*last good checkpoint.*critic.lr"):
        run.train()
    assert run.checkpoints.iterations() == [5, 10]
    assert all(bool(t.isfinite().all()) for t in everything(run).values())


def test_student_trains_every_nth_iteration_when_critics_update_more_often(tmp_path: Path) -> None:
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2), critic_updates=4
    )
    run = trainer(world_recipe(optim=optim), tmp_path)
    run.train()
    rows = read_log(tmp_path / "log.jsonl")
    assert [r["iteration"] for r in rows if r["student"] is not None] == [3, 7, 11, 15, 19]
    assert all(r["critic"] is not None for r in rows)


@pytest.mark.usefixtures("fresh_accelerate")
def test_bf16_trains_both_players_and_keeps_float32_weights(tmp_path: Path) -> None:
    samples = SamplesConfig(count=4, cache=str(tmp_path / "cache"), dtype="float16")
    recipe = world_recipe(run=RunConfig(batch=4, precision="bf16"), samples=samples)
    before = {k: v.clone() for k, v in build_parts(recipe).network.module.state_dict().items()}
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    run = api.prepare(recipe, tmp_path, accelerator=accelerator)
    run.train()
    after = published_weights(run.state)
    assert all(v.dtype == torch.float32 for v in after.values())
    assert any(not torch.equal(before[k], after[k]) for k in after)
    rows = read_log(tmp_path / "log.jsonl")
    assert all(r["critic"] == r["critic"] and r["accuracy"] for r in rows)

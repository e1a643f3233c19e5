"""How an iteration is carried out: heads that are offloaded, EMA weights put on for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distillkit.randomness import generator
from distillkit.recipe.schema import RunConfig
from tests.distillkit.world import assert_same, everything, trainer, world_recipe

OFFLOADED = RunConfig(batch=4, offload_heads=True)


def test_offloaded_heads_train_as_heads_that_stay(tmp_path: Path) -> None:
    stay = trainer(world_recipe(run=RunConfig(batch=4)), tmp_path / "stay")
    stay.train()
    offloaded = trainer(world_recipe(run=OFFLOADED), tmp_path / "offloaded")
    offloaded.train()
    assert_same(everything(stay), everything(offloaded))


def test_the_drawn_heads_alone_visit_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is moved in an iteration: each drawn head to the device and back, with its moments."""
    run = trainer(world_recipe(run=OFFLOADED), tmp_path)
    assert run.state.critics is not None
    pool = run.state.critics.pool
    numbers = {head: number for number, head in enumerate(pool.heads)}
    moved: list[tuple[int, str]] = []
    real = nn.Module.to

    def seen(module: Any, *args: Any, **kwargs: Any) -> Any:
        if module in numbers:
            moved.append((numbers[module], str(args[0])))
        return real(module, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "to", seen)
    monkeypatch.setattr(type(run.accelerator), "device", "cpu:0")
    drawn = pool.draw(4, generator(0, "panel", 0)).head_ids
    run.step(0)
    assert moved == [(h, "cpu:0") for h in drawn] + [(h, "cpu") for h in drawn]
    assert 0 < len(drawn) < len(pool.heads)


def test_ema_weights_are_there_inside_and_the_students_own_outside(tmp_path: Path) -> None:
    run = trainer(world_recipe(), tmp_path)
    for i in range(3):
        run.step(i)
    module = run.state.student.network.module
    own = {name: p.detach().clone() for name, p in module.named_parameters()}
    ema = run.state.ema
    assert ema is not None
    with run.state.ema_weights():
        inside = dict(run.state.student.network.module.named_parameters())
        assert all(torch.equal(inside[name], ema.weights[name]) for name in own)
        assert not any(torch.equal(inside[name], own[name]) for name in own)
    after = dict(run.state.student.network.module.named_parameters())
    assert all(torch.equal(after[name], own[name]) for name in own)

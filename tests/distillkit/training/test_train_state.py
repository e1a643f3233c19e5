"""How an iteration is carried out: heads that are offloaded, EMA weights put on for a while."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import conv2d

from distillkit import api
from distillkit.randomness import generator
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    RunConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.training.metrics import Diverged, StepMetrics
from distillkit.training.step import make_batch, student_gradients
from distillkit_nitrofusion.losses.hinge import HingeConfig
from tests.distillkit.world import assert_same, everything, made_up_loss, trainer, world_recipe

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
    [critic] = run.state.critics
    pool = critic.pool
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


def nan_gradient(x: Tensor) -> Tensor:
    """0, with a gradient of 0 * inf: a finite loss and a gradient that is not."""
    return (x - x.detach()).abs().sqrt().sum()


@pytest.mark.parametrize("player", ["critic", "student"])
def test_a_gradient_that_is_not_finite_reaches_no_weight(tmp_path: Path, player: str) -> None:
    """The loss is finite throughout; neither player is stepped, nor the average."""
    hinge: Any = HingeConfig().build(None, None)  # type: ignore[arg-type]

    def poisoned(which: str) -> Any:
        def term(batch: Any) -> Tensor:
            loss: Tensor = getattr(hinge, which)(batch)
            if which != player or batch.iteration < 2:
                return loss
            logits = batch.critic_logits() if player == "critic" else batch.student_logits()
            return loss + nan_gradient(logits[0].fake_BK)

        return term

    losses = [made_up_loss(poisoned("critic"), poisoned("student"))]
    run = trainer(world_recipe(losses=losses), tmp_path)
    for i in range(2):
        run.step(i)
    before = everything(run)
    with pytest.raises(Diverged, match=rf"The {player}'s gradient is nan.*optim.{player}.clip"):
        run.step(2)
    assert_same(before, everything(run))


def test_moments_of_the_warmup_end_at_the_students_first_joint_step(tmp_path: Path) -> None:
    """2 + 1 iterations of warm-up, then 3 critic updates for each of the student's.

    Steps that its moments have seen: 1, 2; then none is taken until iteration 5, which starts
    anew: 1; and 2 at iteration 8.
    """
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2), critic_updates=3
    )
    warmup = WarmupConfig(student=2, losses=[{"type": "regression"}], critic=1)
    run = trainer(world_recipe(optim=optim, warmup=warmup), tmp_path)
    resets = [i for i in range(len(run.schedule)) if run.schedule.spec(i).resets_optimizer]
    assert resets == [0, 5]
    [group] = run.state.student_optimizer.param_groups
    steps = []
    for i in range(9):
        run.step(i)
        states = [run.state.student_optimizer.state[p] for p in group["params"]]
        assert len({int(state["step"]) for state in states}) == 1
        steps.append(int(states[0]["step"]))
    assert steps == [1, 2, 2, 2, 2, 1, 1, 1, 2]


def keep_sixteen_bit_copies(monkeypatch: pytest.MonkeyPatch, convolution: Any) -> None:
    """Let the layer reuse the first bfloat16 copies of its weights until the cache is cleared."""
    copies: list[Tensor] = []

    def forward(x_BCHW: Tensor) -> Tensor:
        if not copies:
            copies.extend((convolution.weight.bfloat16(), convolution.bias.bfloat16()))
        return conv2d(x_BCHW.bfloat16(), *copies, padding=1)

    monkeypatch.setattr(torch, "clear_autocast_cache", copies.clear)
    monkeypatch.setattr(convolution, "forward", forward)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_parameter_of_the_student_learns_in_bf16(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of a roll-out must not take 16-bit copies of weights from those without
    gradients: they would train nothing (torch #112583).

    Versions of torch whose autocast keeps no such copies can't fail, so the network keeps its own
    as that of torch 2.6 does: made once, and dropped when autocast's cache is cleared.
    """
    recipe = world_recipe(
        refinement={"type": "fixed", "steps": steps, "iterations": 2},
        run=RunConfig(batch=4, precision="bf16"),
        losses=[{"type": "hinge"}, {"type": "regression", "rollouts": "all"}],
    )
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    run = api.prepare(recipe, tmp_path, accelerator=accelerator)
    state, spec = run.state, run.schedule.spec(0)
    keep_sixteen_bit_copies(monkeypatch, state.student.network.module)
    with state.micro_batch(last=True):
        batch = make_batch(state, spec, 0, 0, state.draw_panels(0, 1))
        student_gradients(state, spec, batch, StepMetrics(spec))
    gradients = {name: p.grad for name, p in state.student.network.module.named_parameters()}
    assert gradients
    assert {n for n, g in gradients.items() if g is None or not bool((g != 0).any())} == set()

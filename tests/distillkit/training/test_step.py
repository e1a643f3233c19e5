"""One iteration: which weights move, which do not, and that micro-batches are one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.randomness import generator
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    RunConfig,
    SamplesConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.training.step import make_batch
from tests.distillkit.world import MeanGuessConfig, everything, trainer, world_recipe


def test_undrawn_heads_have_no_gradient_and_do_not_change(tmp_path: Path) -> None:
    recipe = world_recipe(refresh={"type": "never"})
    run = trainer(recipe, tmp_path)
    state = run.state
    assert state.critics is not None
    assert state.critic_optimizer is not None
    heads = state.critics.pool.heads
    for i in range(4):
        before = [{k: v.clone() for k, v in h.state_dict().items()} for h in heads]
        steps = [_steps_taken(state.critic_optimizer, h) for h in heads]
        panel = state.critics.pool.draw(4, generator(recipe.run.seed, "panel", i))
        drawn = panel.head_ids
        assert 0 < len(drawn) < len(heads)
        run.step(i)
        for n, head in enumerate(heads):
            same = all(torch.equal(v, before[n][k]) for k, v in head.state_dict().items())
            assert same == (n not in drawn)
            assert all(p.grad is None for p in head.parameters())
            assert _steps_taken(state.critic_optimizer, head) == steps[n] + (n in drawn)


def _steps_taken(optimizer: Any, head: Any) -> int:
    return int(optimizer.state.get(next(head.parameters()), {}).get("step", 0))


def test_refreshed_heads_start_without_moments_and_with_age_zero(tmp_path: Path) -> None:
    run = trainer(world_recipe(refresh={"type": "random", "fraction": 1.0}), tmp_path)
    run.step(0)
    assert run.state.critic_optimizer is not None
    assert not run.state.critic_optimizer.state
    assert run.state.reset_iteration_N.tolist() == [1] * 24


def test_frozen_networks_never_move_and_never_hold_gradients(tmp_path: Path) -> None:
    run = trainer(world_recipe(), tmp_path)
    assert run.parts.backbone is not None
    frozen = [*run.parts.teacher.modules(), *run.parts.backbone.modules()]
    before = [{k: v.clone() for k, v in m.state_dict().items()} for m in frozen]
    student = everything(run)
    run.train()
    for module, weights in zip(frozen, before, strict=True):
        assert not module.training
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
        assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())
    after = everything(run)
    learnt = [k for k in student if k.startswith("student.") and k in after]
    assert learnt
    assert not any(torch.equal(student[k], after[k]) for k in learnt)


def test_accumulated_micro_batches_equal_one_batch_for_both_players(tmp_path: Path) -> None:
    """2 micro-batches of 4 see the pictures, noise, crops and heads of one batch of 8.

    Compared are the first moments after one iteration, (1 - 0.9) * gradient: Adam's own step
    would turn rounding of near-zero gradients into a full step.
    """
    moments = {}
    adam = {"betas": (0.9, 0.99)}
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3, clip=1.0, **adam), critic=AdamWConfig(lr=1e-2, **adam)
    )
    for run in (RunConfig(batch=8), RunConfig(batch=4, accumulate=2)):
        one = trainer(world_recipe(run=run, optim=optim, refresh=None), tmp_path)
        one.step(19)
        saved = everything(one)
        moments[run.batch] = {k: v for k, v in saved.items() if k.endswith("exp_avg")}
    assert {name.split(".")[0] for name in moments[8]} == {"student-optimizer", "critic-optimizer"}
    for name, moment in moments[8].items():
        torch.testing.assert_close(moments[4][name], moment, rtol=1e-4, atol=1e-7)
    assert all(float(m.abs().max()) > 1e-4 for k, m in moments[8].items() if m.ndim == 4)


def test_fresh_noise_leaves_the_warmup_and_the_teachers_pictures_as_they_are(
    tmp_path: Path,
) -> None:
    samples = SamplesConfig(count=4, cache=str(tmp_path / "cache"), noise="fresh")
    warmup = WarmupConfig(student=1, losses=[{"type": "regression"}], critic=1)
    run = trainer(world_recipe(samples=samples, warmup=warmup), tmp_path / "run")
    run.train()
    state, once, again = run.state, range(4), range(4, 8)
    batches = {
        (i, first): make_batch(state, run.schedule.spec(i), positions, None)
        for i in range(3)
        for first, positions in ((True, once), (False, again))
    }
    ids = [state.samples.order.sample_id(p) for p in once]
    assert torch.equal(batches[0, True].x_T_BCHW, state.samples.x_T(ids))
    assert torch.equal(batches[0, True].real_BCHW, batches[2, True].real_BCHW)
    for i in (1, 2):  # critic warm-up, and both players
        drawn = torch.cat([batches[i, True].x_T_BCHW, batches[i, False].x_T_BCHW])
        # The second epoch over the same four samples starts elsewhere.
        assert len(drawn.flatten(1).unique(dim=0)) == 8
        assert not torch.isclose(drawn[:4], batches[0, True].x_T_BCHW).all(dim=(1, 2, 3)).any()


def test_a_loss_may_own_a_network_and_need_no_critics(tmp_path: Path) -> None:
    """A first Adam step is lr long: the loss's network moves by optim.aux.lr = 0.5."""
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), aux=AdamWConfig(lr=0.5), critic_updates=2
    )
    losses = [MeanGuessConfig()]
    recipe = world_recipe(losses=losses, optim=optim, pool=None, backbone=None, refresh=None)
    run = trainer(recipe, tmp_path)
    before = everything(run)
    run.step(0)
    after = everything(run)
    assert abs(float(after["aux-0.bias"])) == pytest.approx(0.5, rel=1e-4)
    assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith("student."))
    run.step(1)
    moved = everything(run)
    assert not any(torch.equal(moved[k], v) for k, v in before.items() if k.startswith("student."))

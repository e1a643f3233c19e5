"""One iteration: which weights move, which do not, and that micro-batches are one batch."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from distillkit.configs import BackboneConfig
from distillkit.randomness import generator
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    RunConfig,
    StudentAdamWConfig,
)
from distillkit.training import step
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.step import make_batch
from distillkit_nitrofusion.losses.hinge import HingeConfig
from distillkit_nitrofusion.losses.regression import RegressionConfig
from distillkit_nitrofusion.losses.relativistic import RelativisticPairedConfig
from tests.distillkit.world import (
    MeanGuessConfig,
    assert_same,
    everything,
    made_up_loss,
    trainer,
    world_recipe,
)


def test_undrawn_heads_have_no_gradient_and_do_not_change(tmp_path: Path) -> None:
    recipe = world_recipe(refresh={"type": "never"})
    run = trainer(recipe, tmp_path)
    state = run.state
    [critic] = state.critics
    assert state.critic_optimizer is not None
    heads = critic.pool.heads
    for i in range(4):
        before = [{k: v.clone() for k, v in h.state_dict().items()} for h in heads]
        steps = [_steps_taken(state.critic_optimizer, h) for h in heads]
        panel = critic.pool.draw(4, generator(recipe.run.seed, "panel", i))
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
    [critic] = run.state.critics
    assert critic.reset_iteration_N.tolist() == [1] * 24


def test_frozen_networks_never_move_and_never_hold_gradients(tmp_path: Path) -> None:
    run = trainer(world_recipe(), tmp_path)
    [critic] = run.parts.critics
    frozen = [*run.parts.teacher.modules(), *critic.backbone.modules()]
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


@pytest.mark.parametrize("draw", ["one", "all", "per-picture"])
def test_accumulated_micro_batches_equal_one_batch_for_both_players(
    tmp_path: Path, draw: str
) -> None:
    """Micro-batches of 4 and of 1 see the pictures, noise, crops and heads of one batch of 8.

    Compared are the first moments after one iteration, (1 - 0.9) * gradient: Adam's own step
    would turn rounding of near-zero gradients into a full step. And what is counted of heads.
    """
    moments, counts, logs = {}, {}, {}
    adam = {"betas": (0.9, 0.99)}
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3, clip=1.0, **adam), critic=AdamWConfig(lr=1e-2, **adam)
    )
    pool = world_recipe().pool.model_copy(update={"draw": draw})
    for size in (8, 4, 1):
        run = RunConfig(batch=size, accumulate=8 // size)
        one = trainer(world_recipe(run=run, optim=optim, pool=pool, refresh=None), tmp_path)
        logs[size] = one.step(19)
        saved = everything(one)
        moments[size] = {k: v for k, v in saved.items() if k.endswith("exp_avg")}
        counts[size] = {k: v for k, v in saved.items() if k.startswith("progress.heads.")}
    assert {name.split(".")[0] for name in moments[8]} == {"student-optimizer", "critic-optimizer"}
    assert {name.split(".")[2] for name in counts[8]} >= {"updates", "wins", "seen"}
    assert all(float(m.abs().max()) > 1e-4 for k, m in moments[8].items() if m.ndim == 4)
    for size in (4, 1):
        assert moments[size].keys() == moments[8].keys()
        for name, moment in moments[8].items():
            if size == 4:
                torch.testing.assert_close(moments[4][name], moment, rtol=1e-4, atol=1e-7)
            # Of single pictures sums are rounded elsewhere; other draws would differ altogether.
            assert (moments[size][name] - moment).norm() <= 1e-3 * moment.norm() + 1e-7
        assert all(torch.equal(counts[size][name], count) for name, count in counts[8].items())
        assert logs[size].accuracy.keys() == logs[8].accuracy.keys()
        for values, whole in (
            (logs[size].pulls, logs[8].pulls),
            (logs[size].directions, logs[8].directions),
            ({"critic": logs[size].critic}, {"critic": logs[8].critic}),
            ({"student": logs[size].student}, {"student": logs[8].student}),
        ):
            assert values == pytest.approx(whole, rel=1e-4)


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


def test_losses_in_two_stages_give_the_gradient_of_one_joint_backward(tmp_path: Path) -> None:
    """Each loss's gradient at x_0-hat, summed and passed on once: that of the weighted sum.

    The joint one is torch's own, through x_0-hat that is still part of the student's graph. Two of
    the losses share the graph of the backbone.
    """
    weights = (2.0, 0.3, 0.5)
    kinds = (HingeConfig, RelativisticPairedConfig, RegressionConfig)
    losses = [kind(weight=weight) for kind, weight in zip(kinds, weights, strict=True)]
    run = trainer(world_recipe(losses=losses), tmp_path)
    state, spec = run.state, run.schedule.spec(0)
    parameters = list(state.student.network.module.parameters())

    def batch() -> LazyTrainBatch:
        return make_batch(state, spec, 0, 0, state.draw_panels(0, 1))

    split = batch()
    terms = [(loss, loss.student_term(split)) for loss in spec.losses]
    share, pulls = state.backward_student(terms, spec, split)
    joint = batch()
    joint.samples.__dict__["fake_BCHW"] = joint.rollout_BCHW
    alone = [loss.loss.student(joint) for loss in spec.losses]
    total = sum(weight * term for weight, term in zip(weights, alone, strict=True))
    for p, expected in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
        assert p.grad is not None
        assert float(expected.abs().max()) > 1e-3
        torch.testing.assert_close(p.grad, expected, rtol=1e-5, atol=1e-5)
    assert float(share) == pytest.approx(float(total.detach()))
    # And each loss's own gradient at x_0-hat is known by name.
    assert [pull.loss for pull in pulls] == ["hinge", "relativistic-paired", "regression"]
    toward = joint.real_BCHW - joint.fake_BCHW
    expected = -0.5 * 2 * toward / toward.numel()
    torch.testing.assert_close(pulls[2].grad_BCHW, expected, rtol=1e-5, atol=1e-8)


def test_the_mode_in_which_a_loss_first_asks_for_samples_and_logits_changes_nothing(
    tmp_path: Path,
) -> None:
    """Samples are made when they are asked for, here under no_grad and by the critics' term."""

    def peek(batch: Any) -> Tensor:
        with torch.no_grad():
            batch.perturbed_fake_logits(0.1)
            batch.student_logits()
            batch.critic_logits()
        return hinge.critic(batch)

    hinge: Any = HingeConfig().build(None, None)  # type: ignore[arg-type]
    after = []
    for config in (HingeConfig(), made_up_loss(peek, hinge.student)):
        run = trainer(world_recipe(losses=[config]), tmp_path)
        run.step(0)
        after.append(everything(run))
    assert_same(*after)


class LearningBackbone:
    """A convolution that trains with the heads; NitroFusion's own never do."""

    channels = (8,)

    def __init__(self) -> None:
        self.conv = nn.Conv2d(4, 8, 3, padding=1, device="meta").to_empty(device="cpu")
        for n, p in enumerate(self.conv.parameters()):
            nn.init.normal_(p, std=0.3, generator=generator(0, "conv", n))

    def features(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Any, window: Any) -> list[Tensor]:
        return [self.conv(x_t_BCHW).tanh()]

    def modules(self) -> list[nn.Module]:
        return [self.conv]


class LearningBackboneConfig(BackboneConfig):
    """For tests of a backbone that trains, which no example does."""

    type: Literal["learning"] = "learning"

    def build(self, teacher: Any) -> Any:
        return LearningBackbone()


@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
def test_a_backbone_that_trains_learns_with_the_critics_alone(tmp_path: Path, updates: str) -> None:
    """Its gradient is that of the critics' loss: the student's goes through it and stays out."""
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3),
        critic=AdamWConfig(lr=1e-2, betas=(0.9, 0.99)),
        updates=updates,
    )
    moments = []
    for losses in ([HingeConfig()], [made_up_loss(HingeConfig().build(None, None).critic)]):
        both = losses if len(moments) == 0 else [*losses, RegressionConfig()]
        recipe = world_recipe(backbone=LearningBackboneConfig(), optim=optim, losses=both)
        run = trainer(recipe, tmp_path)
        before = everything(run)
        run.step(0)
        after = everything(run)
        for part in ("student.", "heads.", "aux-0."):
            assert any(not torch.equal(before[n], after[n]) for n in before if n.startswith(part))
        [conv] = run.state.aux_networks
        state = run.state.critic_optimizer.state  # type: ignore[union-attr]
        moments.append([state[p]["exp_avg"] for p in conv.parameters()])
    assert all(float(m.abs().max()) > 1e-5 for m in moments[0])
    for with_students_term, without in zip(*moments, strict=True):
        torch.testing.assert_close(with_students_term, without, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("updates", ["alternating", "simultaneous"])
def test_an_iterations_tensors_are_freed_when_it_ends(
    tmp_path: Path, updates: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for Python's collector of cycles, which knows nothing of a device's memory: who
    holds an iteration's maps, samples and logits is gone without it."""
    run = trainer(
        world_recipe(optim={"student": {"lr": 1e-3}, "updates": updates}, run={"batch": 2}),
        tmp_path,
    )
    holders: list[Any] = []

    def watched(*args: Any) -> LazyTrainBatch:
        batch = make_batch(*args)
        holders.extend(weakref.ref(each) for each in (batch, batch.samples, *batch.passes))
        return batch

    monkeypatch.setattr(step, "make_batch", watched)
    gc.disable()
    try:
        run.step(0)
        alive = [holder() is not None for holder in holders]
    finally:
        gc.enable()
    assert alive == [False] * 3

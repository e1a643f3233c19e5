"""DMD2's loss against values worked out by hand, and a run in which it owns its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from distillkit import api, testing
from distillkit.errors import UserError
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.noising import NoiseSchedule
from distillkit.randomness import generator
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    RunConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.runs.folder import read_log
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.state import state_tensors
from distillkit.training.trainer import Trainer
from distillkit.values import Condition
from distillkit_dmd2.loss import DistributionMatching, DistributionMatchingConfig
from distillkit_nitrofusion.losses.hinge import HingeConfig


class Constant:
    """Predicts one x_0 for any input."""

    prediction: Any = "sample"

    def __init__(self, value: float) -> None:
        self.module: nn.Module = nn.Linear(1, 1)
        self.value = value

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        return torch.full_like(x_t_BCHW, self.value)


class MeanOfCondition(Constant):
    """Predicts the mean of its condition."""

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        return torch.zeros_like(x_t_BCHW) + float(cond.tensors["told"].mean())


def loss_with(denoiser: Any, guidance: float) -> DistributionMatching:
    """The loss with this teacher, and a fake score that says 2."""
    teacher: Any = ExampleTeacherConfig().build()
    teacher.denoiser = denoiser
    loss = DistributionMatching(teacher, low=20, high=980, guidance=guidance)
    loss.fake_score = Constant(2.0)
    return loss


def batch_of(fake_BCHW: Tensor, cond: float = 0.0, first: int = 0) -> LazyTrainBatch:
    """The pictures from number `first` on; the gradient stays in `batch.fake_BCHW.grad`."""
    count = len(fake_BCHW)
    return LazyTrainBatch(
        iteration=0,
        x_T_BCHW=fake_BCHW,
        cond=Condition({"told": torch.full((count, 2), cond)}),
        null=Condition({"told": torch.zeros(count, 2)}),
        make_real=lambda: fake_BCHW,
        make_fake=lambda: fake_BCHW,
        steps=1,
        positions=range(first, first + count),
        seed=0,
    )


def test_student_moves_from_its_own_score_to_the_teachers() -> None:
    """x = 3, real score says 1, fake score says 2: g = (2 - 1) / |3 - 1| = 0.5 in every value.

    The loss is 0.5 * 0.5^2 = 0.125, its gradient 0.5 / number of values: downhill is towards 1.
    """
    loss = loss_with(Constant(1.0), guidance=1.0)
    x = torch.full((2, 4, 8, 8), 3.0, requires_grad=True)
    batch = batch_of(x)
    value = loss.student(batch)
    value.backward()
    assert abs(float(value.detach()) - 0.125) < 1e-6
    torch.testing.assert_close(batch.fake_BCHW.grad, torch.full_like(x, 0.5 / x.numel()))


def test_guidance_extrapolates_the_teachers_score() -> None:
    """Told 1, null 0, guidance 3: real = 0 + 3 * (1 - 0) = 3; fake 2, x = 4: g = (2 - 3) / 1."""
    loss = loss_with(MeanOfCondition(0.0), guidance=3.0)
    x = torch.full((1, 4, 8, 8), 4.0, requires_grad=True)
    batch = batch_of(x, cond=1.0)
    loss.student(batch).backward()
    assert batch.fake_BCHW.grad is not None
    torch.testing.assert_close(batch.fake_BCHW.grad, torch.full_like(x, -1.0 / x.numel()))


def test_fake_score_learns_and_student_gets_no_gradient_from_that() -> None:
    teacher = ExampleTeacherConfig().build()
    loss = DistributionMatching(teacher, low=20, high=980, guidance=1.0)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    batch = batch_of(x)
    loss.critic(batch).backward()
    assert batch.fake_BCHW.grad is None
    assert x.grad is None
    assert all(p.grad is not None for p in loss.fake_score.module.parameters())
    assert all(p.grad is None for p in teacher.denoiser.module.parameters())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow", "sample"])
def test_a_fake_score_learns_by_its_familys_own_loss(prediction: Any) -> None:
    """A network that says the truth but for 0.5 everywhere is told 0.25, at each noise level: no
    level of a flow counts less because its epsilon would."""
    teacher: Any = ExampleTeacherConfig().build()
    if prediction == "flow":
        teacher.schedule = NoiseSchedule.flow_matching(shift=3.0)
    loss = DistributionMatching(teacher, low=20, high=980, guidance=1.0)
    x_0_BCHW = torch.randn(6, 4, 8, 8)

    class Nearly(Constant):
        def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
            alpha, sigma = teacher.schedule.alpha_sigma(t_B)
            eps_BCHW = (x_t_BCHW - alpha * x_0_BCHW) / sigma
            truth = {
                "epsilon": eps_BCHW,
                "sample": x_0_BCHW,
                "flow": eps_BCHW - x_0_BCHW,
                "v_prediction": alpha * eps_BCHW - sigma * x_0_BCHW,
            }
            return truth[prediction] + 0.5

    loss.fake_score = Nearly(0.0)
    loss.fake_score.prediction = prediction
    assert float(loss.critic(batch_of(x_0_BCHW))) == pytest.approx(0.25, rel=1e-3)


def test_the_two_terms_and_noise_and_timesteps_are_drawn_apart() -> None:
    """Over 4,000 pictures, those of fake score and student agree as often as chance has it, and a
    timestep says nothing of the random number that its noise begins with."""
    batch = batch_of(torch.zeros(4000, 1, 1, 1))
    one, other = (batch.timesteps(purpose, 0, 1000) for purpose in ("fake score", "score"))
    assert int((one == other).sum()) < 20
    first = [
        int(torch.randint(0, 8, (), generator=generator(0, "loss score", p))) for p in range(4000)
    ]
    assert int((batch.timesteps("score", 0, 8) == torch.tensor(first)).sum()) < 700


def test_draws_do_not_depend_on_the_split_into_micro_batches() -> None:
    """Six pictures in one batch, and in batches of one, two and three: the mean of the terms.

    Both players' terms are means over pictures, so those of the parts add up by their size.
    """
    teacher = ExampleTeacherConfig().build()
    loss = DistributionMatching(teacher, low=20, high=980, guidance=1.0)
    for p in loss.fake_score.module.parameters():  # not the teacher's: else g is zero
        p.data.mul_(0.5)
    x_BCHW = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x_BCHW.requires_grad_()
    for player in (loss.critic, loss.student):
        whole = player(batch_of(x_BCHW, first=12))
        parts = [
            len(rows) / 6 * player(batch_of(x_BCHW[rows.start : rows.stop], first=12 + rows.start))
            for rows in (range(1), range(1, 3), range(3, 6))
        ]
        torch.testing.assert_close(torch.stack(parts).sum(), whole, rtol=1e-5, atol=1e-7)
        other = player(batch_of(x_BCHW, first=13))
        assert abs(float((other - whole).detach())) > 1e-4 * abs(float(whole.detach()))


def test_micro_batches_of_a_run_equal_one_batch(tmp_path: Path) -> None:
    """First moments, (1 - 0.9) * gradient, of student, heads and fake score."""
    adam = {"betas": (0.9, 0.99)}
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3, **adam), critic=AdamWConfig(lr=1e-2, **adam)
    )
    moments = []
    for run in (RunConfig(batch=6), RunConfig(batch=2, accumulate=3)):
        losses = (DistributionMatchingConfig(), HingeConfig(weight=0.1))
        recipe = testing.recipe(*losses, optim=optim, run=run)
        made = api.prepare(recipe, tmp_path, accelerator=Accelerator(cpu=True))
        made.step(0)
        saved = everything(made)
        moments.append({k: v for k, v in saved.items() if k.endswith("exp_avg")})
    whole, parts = moments
    assert whole.keys() == parts.keys()
    for name, moment in whole.items():
        torch.testing.assert_close(parts[name], moment, rtol=1e-3, atol=1e-7)


def everything(run: Trainer) -> dict[str, Tensor]:
    """A copy of all that a checkpoint holds, by part and name."""
    parts = state_tensors(run.state, run.monitor).items()
    return {f"{part}.{k}": t.detach().clone() for part, ts in parts for k, t in ts.items()}


def test_a_run_with_five_critic_updates_a_student_update_and_a_gan_term(tmp_path: Path) -> None:
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3),
        critic=AdamWConfig(lr=1e-2),
        aux=AdamWConfig(lr=1e-3),
        critic_updates=5,
    )
    recipe = testing.recipe(
        *(DistributionMatchingConfig(), HingeConfig(weight=0.1)),
        ExampleRefinementConfig(iterations=20),
        optim=optim,
    )
    run = api.prepare(recipe, tmp_path, accelerator=Accelerator(cpu=True))
    before = everything(run)
    run.train()
    after = everything(run)
    for part in ("student.", "heads.", "aux-0."):
        assert any(not torch.equal(after[k], v) for k, v in before.items() if k.startswith(part))
    rows = read_log(tmp_path / "log.jsonl")
    assert [r["iteration"] for r in rows if r["student"] is not None] == [4, 9, 14, 19]


def test_a_warm_up_in_which_the_fake_score_would_not_learn_is_refused(tmp_path: Path) -> None:
    warmup = WarmupConfig(student=2, losses=(DistributionMatchingConfig(),))
    recipe = testing.recipe(HingeConfig(), warmup=warmup)
    with pytest.raises(UserError, match="has networks of its own, which learn with the critics"):
        api.prepare(recipe, tmp_path, accelerator=Accelerator(cpu=True))


def test_a_teacher_without_low_rank_matrices_is_a_sentence() -> None:
    teacher = ExampleTeacherConfig().build()
    with pytest.raises(UserError, match="a ExampleTeacher has no LoRA for a fake score; leave"):
        DistributionMatching(teacher, low=20, high=980, guidance=1.0, rank=2)


def test_a_network_without_checkpoints_is_a_sentence() -> None:
    teacher = ExampleTeacherConfig().build()
    with pytest.raises(UserError, match="has no gradient checkpointing; leave `gradient_check"):
        DistributionMatching(teacher, low=20, high=980, guidance=1.0, gradient_checkpointing=True)

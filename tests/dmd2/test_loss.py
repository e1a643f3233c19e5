"""DMD2's loss against values worked out by hand, and a run in which it owns its network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.recipe.schema import AdamWConfig, OptimConfig, StudentAdamWConfig
from distillkit.runs.folder import read_log
from distillkit.training.critics import Pictures
from distillkit.values import Condition
from distillkit_dmd2.loss import DistributionMatching
from tests.core.test_training import everything, trainer
from tests.core.world import WorldTeacher, world_recipe


class Constant:
    """Says one x_0 whatever it sees."""

    prediction: Any = "sample"

    def __init__(self, value: float) -> None:
        self.module: nn.Module = nn.Linear(1, 1)
        self.value = value

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        return torch.full_like(x_t_BCHW, self.value)


def pictures(fake_BCHW: Tensor) -> Pictures:
    none = Condition({"told": torch.zeros(len(fake_BCHW), 2)})
    return Pictures(fake_BCHW, none, none, fake_BCHW, fake_BCHW, 1, range(len(fake_BCHW)), seed=0)


def test_student_moves_from_its_own_score_to_the_teachers() -> None:
    """x = 3, real score says 1, fake score says 2: g = (2 - 1) / |3 - 1| = 0.5 in every value.

    The loss is 0.5 * 0.5^2 = 0.125, its gradient 0.5 / number of values: downhill is towards 1.
    """
    teacher: Any = WorldTeacher()
    teacher.denoiser = Constant(1.0)
    loss = DistributionMatching(teacher, 20, 980, guidance=1.0)
    loss.fake_score = Constant(2.0)
    x = torch.full((2, 4, 8, 8), 3.0, requires_grad=True)
    value = loss.student(pictures(x))
    value.backward()
    assert abs(float(value.detach()) - 0.125) < 1e-6
    torch.testing.assert_close(x.grad, torch.full_like(x, 0.5 / x.numel()))


def test_guidance_extrapolates_the_teachers_score() -> None:
    """Told 1, null 0, guidance 3: real = 0 + 3 * (1 - 0) = 3; fake 2, x = 4: g = (2 - 3) / 1."""
    teacher: Any = WorldTeacher()

    class Told(Constant):
        def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
            return torch.zeros_like(x_t_BCHW) + float(cond.tensors["told"].mean())

    teacher.denoiser = Told(0.0)
    loss = DistributionMatching(teacher, 20, 980, guidance=3.0)
    loss.fake_score = Constant(2.0)
    x = torch.full((1, 4, 8, 8), 4.0, requires_grad=True)
    shown = pictures(x)
    shown.cond = Condition({"told": torch.ones(1, 2)})
    loss.student(shown).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.full_like(x, -1.0 / x.numel()))


def test_fake_score_learns_and_student_gets_no_gradient_from_that() -> None:
    loss = DistributionMatching(WorldTeacher(), 20, 980, guidance=1.0)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    loss.critic(pictures(x)).backward()
    assert x.grad is None
    assert all(p.grad is not None for p in loss.fake_score.module.parameters())
    assert all(
        not p.requires_grad or p.grad is None for p in loss.teacher.modules()[0].parameters()
    )


def test_a_run_with_five_critic_updates_a_student_update_and_a_gan_term(tmp_path: Path) -> None:
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3),
        critic=AdamWConfig(lr=1e-2),
        networks=AdamWConfig(lr=1e-3),
        critic_updates=5,
    )
    losses = [{"type": "distribution-matching"}, {"type": "hinge", "weight": 0.1}]
    run = trainer(world_recipe(losses=losses, optim=optim), tmp_path)
    before = everything(run)
    run.train()
    after = everything(run)
    for part in ("student", "heads", "other-0"):
        assert any(not torch.equal(after[k], v) for k, v in before.items() if k.startswith(part))
    rows = read_log(tmp_path / "log.jsonl")
    assert [r["iteration"] for r in rows if r["student"] is not None] == [4, 9, 14, 19]

"""What can be wrong with what a loss gives for a batch. Each is told in a sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.loss import ExampleLossConfig
from tests.distillkit.testing.flaws import Flaws, flawed, said_of, table


def critic(change: Any) -> ComponentConfig:
    """`change(sound, batch)` in the place of `critic`."""
    return flawed(ExampleLossConfig, critic=change)


def student(change: Any) -> ComponentConfig:
    return flawed(ExampleLossConfig, student=change)


def gap(batch: Any) -> Tensor:
    """Squared distance of each picture."""
    squared: Tensor = (batch.fake_BCHW - batch.real_BCHW).square().mean((1, 2, 3))
    return squared


def writes_real(sound: Any, batch: Any) -> Any:
    batch.real_BCHW.mul_(2)
    return sound(batch)


def writes_fake(sound: Any, batch: Any) -> Any:
    batch.fake_BCHW.data.clamp_(-0.1, 0.1)
    return sound(batch)


def writes_logits(sound: Any, batch: Any) -> Any:
    for logits in batch.critic_logits():
        logits.real_BK.data.sub_(1)
    return sound(batch)


def writes_timesteps(sound: Any, batch: Any) -> Any:
    for logits in batch.student_logits():
        logits.t_B.zero_()
    return sound(batch)


def writes_condition(sound: Any, batch: Any) -> Any:
    for tensor in batch.cond.tensors.values():
        tensor.zero_()
    return sound(batch)


def reads(how: Any) -> Any:
    """A term that looks at its value on the way."""

    def term(sound: Any, batch: Any) -> Any:
        value = sound(batch)
        if value is not None:
            how(value.detach())
        return value

    return term


def all_rows(sound: Any, batch: Any) -> Any:
    """Pairs the logits with the batch's pictures, though a view may judge some of them."""
    weight_B = batch.real_BCHW.mean((1, 2, 3)).square()
    logits = batch.student_logits()
    return torch.stack([(v.fake_BK.mean(1) * weight_B).mean() for v in logits]).mean()


PLAN = "plan: loss 'example' of tests.distillkit.testing.flaws failed in critic(): "

TERMS: Flaws = {
    "not finite": (critic(lambda s, b: s(b) / 0), "finite scalar or None, not tensor(inf)"),
    "no scalar": (student(lambda s, b: gap(b)), "should give a finite scalar or None, not (3,)"),
    "a number": (critic(lambda s, b: 1.0), "should give a finite scalar or None, not float"),
    "global generator": (
        critic(lambda s, b: s(b) + torch.rand(())),
        "critic(): differs between two calls: draw from `batch.noise` alone",
    ),
    "sum": (
        student(lambda s, b: gap(b).sum()),
        "student(): sums over the batch: twice the pictures give twice the loss; take the mean",
    ),
    "sum of logits": (
        critic(lambda s, b: s(b) and sum(v.real_BK.square().sum() for v in b.critic_logits())),
        "critic(): sums over the batch",
    ),
    "deviation": (
        student(lambda s, b: gap(b).std() if len(b.x_T_BCHW) > 1 else gap(b).mean()),
        "student(): is no mean over the batch: ",
    ),
    "no logits": (
        critic(lambda s, b: torch.stack([v.real_BK.mean() for v in b.critic_logits()]).mean()),
        "critic() of a batch without logits (no pool, or the student's warm-up) raised RuntimeErr",
    ),
    "mean of nothing": (
        student(
            lambda s, b: sum(
                (v.fake_BK.mean() for v in b.student_logits()), b.x_T_BCHW[0, 0, 0, 0] / 0
            )
        ),
        "student(): should give a finite scalar",
    ),
    "nan without logits": (
        critic(lambda s, b: s(b) if b.critic_logits() else torch.zeros(0).mean()),
        "critic(): gave tensor(nan) for a batch without logits",
    ),
    "all rows": (
        student(lambda s, b: all_rows(s, b) if b.student_logits() else None),
        "student() of a batch of two critics, of which one judges some of the pictures raised Run",
    ),
    "one picture": (
        student(lambda s, b: gap(b).mean() / (len(b.x_T_BCHW) > 1 or int("1 picture"))),
        "student() of a batch of one picture raised ValueError",
    ),
    "writes real": (critic(writes_real), "critic(): wrote into `real_BCHW` of the batch, which"),
    "writes fake": (student(writes_fake), "student(): wrote into `fake_BCHW` of the batch"),
    "writes the leaf": (
        student(lambda s, b: b.fake_BCHW.clamp_(-1, 1).mean()),
        "student() raised RuntimeError: a leaf Variable that requires grad is being used in an in",
    ),
    "writes logits": (critic(writes_logits), "wrote into `critic_logits()[0].real_BK` of the bat"),
    "writes timesteps": (
        student(writes_timesteps),
        "student(): wrote into `critic_logits()[0].t_B` of the batch, which other losses see too",
    ),
    "writes the condition": (critic(writes_condition), "wrote into `cond.tensors['told']` of the"),
    "item": (critic(reads(lambda t: t.item())), PLAN),
    "tolist": (critic(reads(lambda t: t.tolist())), PLAN),
    "float": (critic(reads(float)), PLAN),
    "bool": (critic(reads(bool)), PLAN),
    "numpy": (critic(reads(lambda t: t.numpy())), PLAN),
    "to the heads": (
        student(lambda s, b: b.critic_logits()[0].fake_BK.mean() if b.critic_logits() else None),
        "student(): its gradient reaches the other player: use `student_logits`",
    ),
    "to the student": (
        critic(lambda s, b: gap(b).mean()),
        "critic(): its gradient reaches the other player: use `critic_logits`",
    ),
    "detached": (
        student(lambda s, b: s(b) and s(b).detach()),
        "student(): its gradient reaches nothing of the student's",
    ),
    "silent": (
        flawed(ExampleLossConfig, critic=lambda s, b: None, student=lambda s, b: None),
        "it returns None for both players",
    ),
    "an exception": (
        critic(lambda s, b: b.generator),
        "raised AttributeError: 'LazyTrainBatch' object has no attribute 'generator'",
    ),
}


@table(TERMS)
def test_a_flaw_of_a_term_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_losses_that_only_look_at_one_player_or_refuse_a_recipe_pass() -> None:
    def refuses(sound: Any, batch: Any) -> Any:
        if not batch.critic_logits():
            raise UserError("it needs a pool")
        return sound(batch)

    testing.check(critic(refuses))
    testing.check(
        flawed(ExampleLossConfig, critic=lambda s, b: None, student=lambda s, b: gap(b).mean())
    )
    testing.check(student(lambda s, b: None))

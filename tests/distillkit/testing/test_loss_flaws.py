"""What a loss can get wrong. Each is told in a sentence."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from tests.distillkit.testing.flaws import Flaws, flawed, rebuilt, said_of, table, without


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


def with_network(network: Any) -> Any:
    """A part that lists `network(teacher, student)` in modules()."""

    def change(part: Any, teacher: Any, student: Any) -> Any:
        made = network(teacher, student)
        object.__setattr__(part, "modules", lambda: [made])
        return part

    return change


def seeded() -> nn.Module:
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def renewed(part: Any, *_: Any) -> Any:
    object.__setattr__(part, "modules", lambda: [seeded()])
    return part


def unlisted(part: Any, *_: Any) -> Any:
    """A temperature that is learned, and in none of modules()."""
    temperature, sound = nn.Parameter(torch.ones(())), part.critic
    object.__setattr__(part, "critic", lambda batch: sound(batch) and sound(batch) * temperature)
    return part


def beside(part: Any, *_: Any) -> Any:
    object.__setattr__(part, "features", seeded().requires_grad_(False))
    return part


def past_the_sample(part: Any, teacher: Any, network: Any) -> Any:
    """Runs the student itself."""

    def term(batch: Any) -> Tensor:
        t_B = torch.full((len(batch.x_T_BCHW),), 500, device=batch.x_T_BCHW.device)
        return network(batch.x_T_BCHW, t_B, batch.cond).square().mean()

    object.__setattr__(part, "student", term)
    return part


def of_this_process(part: Any, *_: Any) -> Any:
    margin, sound = random.random(), part.critic
    object.__setattr__(part, "critic", lambda batch: sound(batch) and sound(batch) + margin)
    return part


def thaws(part: Any, teacher: Any, student: Any) -> Any:
    teacher.denoiser.module.requires_grad_(True)
    return part


PLAN = "plan: loss 'example' of tests.distillkit.testing.flaws failed in critic(): "


class Baseline:
    """Subtracts the mean of its earlier values."""

    def __init__(self, loss: Any, *_: Any) -> None:
        self.loss, self.seen = loss, []
        self.critic, self.after_critic_step = loss.critic, loss.after_critic_step
        self.modules = loss.modules

    def student(self, batch: Any) -> Any:
        term = self.loss.student(batch)
        if term is None:
            return None
        self.seen.append(float(term.detach()))
        return term - sum(self.seen) / len(self.seen)


LOSSES: Flaws = {
    "a running mean": (
        rebuilt(ExampleLossConfig, Baseline),
        "student(): depends on the batches of earlier calls, which no checkpoint knows",
    ),
    "not finite": (critic(lambda s, b: s(b) / 0), "finite scalar or None, not tensor(inf)"),
    "no scalar": (student(lambda s, b: gap(b)), "should give a finite scalar or None, not (3,)"),
    "a number": (critic(lambda s, b: 1.0), "should give a finite scalar or None, not float"),
    "global generator": (
        critic(lambda s, b: s(b) + torch.rand(())),
        "critic(): differs between two calls: draw from `batch.noise` alone",
    ),
    "a margin of this process": (
        rebuilt(ExampleLossConfig, of_this_process),
        "critic(): differs between two processes with the same batch",
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
    "past the sample": (
        rebuilt(ExampleLossConfig, past_the_sample),
        "student(): its gradient reaches the student past x_0-hat, where it is lost",
    ),
    "detached": (
        student(lambda s, b: s(b) and s(b).detach()),
        "student(): its gradient reaches nothing of the student's",
    ),
    "silent": (
        flawed(ExampleLossConfig, critic=lambda s, b: None, student=lambda s, b: None),
        "it returns None for both players",
    ),
    "unlisted parameter": (
        rebuilt(ExampleLossConfig, unlisted),
        "critic(): depends on a parameter that is in none of modules(): nothing trains it",
    ),
    "unlisted network": (
        rebuilt(ExampleLossConfig, beside),
        "modules(): the network in `features` is missing",
    ),
    "unseeded network": (
        rebuilt(ExampleLossConfig, with_network(lambda *_: nn.Linear(1, 1))),
        "modules(): two processes start with different weights",
    ),
    "new networks": (rebuilt(ExampleLossConfig, renewed), "gives other networks at every call"),
    "the teacher's": (
        rebuilt(
            ExampleLossConfig,
            with_network(lambda teacher, _: teacher.denoiser.module.requires_grad_(True)),
        ),
        "modules(): a parameter that trains is the teacher's too: copy it",
    ),
    "the student's": (
        rebuilt(ExampleLossConfig, with_network(lambda _, network: network.module)),
        "modules(): a parameter that trains is the student's too: copy it",
    ),
    "thaws the teacher": (
        rebuilt(ExampleLossConfig, thaws),
        "it changed the teacher: its parameters ask for gradients",
    ),
    "replaces weights": (
        flawed(
            ExampleLossConfig,
            after_critic_step=lambda s, h: setattr(h[0][0], "bias", nn.Parameter(torch.zeros(1))),
        ),
        "after_critic_step(): replaced a parameter; write into the old one",
    ),
    "breaks weights": (
        flawed(ExampleLossConfig, after_critic_step=lambda s, h: h[0][0].weight.data.div_(0)),
        "after_critic_step(): left a weight that is not finite",
    ),
    "an exception": (
        critic(lambda s, b: b.generator),
        "raised AttributeError: 'LazyTrainBatch' object has no attribute 'generator'",
    ),
    "no method": (
        without(ExampleLossConfig, "after_critic_step"),
        "which has no `after_critic_step`: a loss has `after_critic_step`, `critic`, `modules`, ",
    ),
    "nothing built": (rebuilt(ExampleLossConfig, lambda *a: None), "build() returned None: return"),
}


@table(LOSSES)
def test_a_flaw_of_a_loss_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_a_value_that_is_read_is_told_with_its_line_and_the_rule() -> None:
    said = said_of(critic(reads(lambda t: t.item())))
    assert (
        f"critic(): RuntimeError: Tensor.item() cannot be called on meta tensors ({__file__}:"
        in said
    )
    assert "Plans run parts on the meta device, where tensors have no values: no `.item()`" in said


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


def test_a_loss_is_checked_and_planned_with_the_teacher_that_is_given() -> None:
    def only(part: Any, teacher: Any, network: Any) -> Any:
        assert teacher.latent_shape == (4, 4, 4)
        return part

    testing.check(rebuilt(ExampleLossConfig, only), teacher=ExampleTeacherConfig(side=4).build())
    with pytest.raises(AssertionError, match=r"build\(\) raised AssertionError"):
        testing.check(rebuilt(ExampleLossConfig, only))

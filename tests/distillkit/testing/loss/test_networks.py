"""What can be wrong with a loss that keeps something: networks, values, what it is built from."""

from __future__ import annotations

import copy
import random
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from tests.distillkit.testing.flaws import Flaws, flawed, rebuilt, said_of, table, without


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


def partly_past_the_sample(part: Any, teacher: Any, network: Any) -> Any:
    """Runs the student itself, beside a term of x_0-hat."""
    past_the_sample(part, teacher, network)
    own = part.student
    object.__setattr__(part, "student", lambda batch: own(batch) + batch.fake_BCHW.square().mean())
    return part


class SecondScore:
    """Moves the student by what its own network learned, which begins as the teacher's."""

    def __init__(self, loss: Any, teacher: Any, *_: Any, reads: bool = True) -> None:
        self.loss, self.teacher, self.reads = loss, teacher.denoiser, reads
        self.score = copy.deepcopy(teacher.denoiser)
        self.score.module.requires_grad_(True)
        self.after_critic_step = loss.after_critic_step

    def critic(self, batch: Any) -> Tensor:
        fake_BCHW = batch.fake_BCHW.detach()
        learned: Tensor = (self._of(self.score, fake_BCHW, batch) - fake_BCHW).square().mean()
        return learned

    def student(self, batch: Any) -> Tensor:
        x_BCHW = batch.fake_BCHW
        with torch.no_grad():
            of = [self._of(each, x_BCHW, batch) for each in (self.score, self.teacher)]
        term: Tensor = ((of[0] - of[1]) * self.reads * x_BCHW).mean()
        return term

    def modules(self) -> list[nn.Module]:
        return [self.score.module]

    @staticmethod
    def _of(score: Any, x_BCHW: Tensor, batch: Any) -> Tensor:
        output: Tensor = score(x_BCHW, torch.full_like(x_BCHW[:, 0, 0, 0], 500), batch.cond)
        return output


def of_this_process(part: Any, *_: Any) -> Any:
    margin, sound = random.random(), part.critic
    object.__setattr__(part, "critic", lambda batch: sound(batch) and sound(batch) + margin)
    return part


def stills(part: Any, teacher: Any, student: Any) -> Any:
    student.module.eval()
    return part


def thaws(part: Any, teacher: Any, student: Any) -> Any:
    teacher.denoiser.module.requires_grad_(True)
    return part


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
    "a margin of this process": (
        rebuilt(ExampleLossConfig, of_this_process),
        "critic(): differs between two processes with the same batch",
    ),
    "past the sample": (
        rebuilt(ExampleLossConfig, past_the_sample),
        "student(): its gradient reaches the student past x_0-hat, where it is lost",
    ),
    "partly past the sample": (
        rebuilt(ExampleLossConfig, partly_past_the_sample),
        "student(): some of its gradient reaches the student past x_0-hat, where it is lost",
    ),
    "a network that nobody asks": (
        rebuilt(ExampleLossConfig, partial(SecondScore, reads=False)),
        "student(): its gradient reaches nothing of the student's",
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
    "stills the student": (
        rebuilt(ExampleLossConfig, stills),
        "it changed the student: its network was put into eval mode",
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
    "no method": (
        without(ExampleLossConfig, "after_critic_step"),
        "which has no `after_critic_step`: a loss has `after_critic_step`, `critic`, `modules`, ",
    ),
    "nothing built": (rebuilt(ExampleLossConfig, lambda *a: None), "build() returned None: return"),
}


@table(LOSSES)
def test_a_flaw_of_a_loss_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_a_loss_may_have_nothing_to_say_before_its_networks_have_learned() -> None:
    """As a fake score that begins as the teacher's. The check leaves the networks as they were."""
    made: list[tuple[SecondScore, Tensor]] = []

    def build(*args: Any) -> SecondScore:
        loss = SecondScore(*args)
        made.append((loss, next(loss.score.module.parameters()).detach().clone()))
        return loss

    testing.check(rebuilt(ExampleLossConfig, build))
    assert all(torch.equal(next(m.score.module.parameters()), start) for m, start in made[:2])


def test_a_loss_is_checked_and_planned_with_the_teacher_that_is_given() -> None:
    def only(part: Any, teacher: Any, network: Any) -> Any:
        assert teacher.latent_shape == (4, 4, 4)
        return part

    testing.check(rebuilt(ExampleLossConfig, only), teacher=ExampleTeacherConfig(side=4).build())
    with pytest.raises(AssertionError, match=r"build\(\) raised AssertionError"):
        testing.check(rebuilt(ExampleLossConfig, only))

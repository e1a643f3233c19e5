"""What parts raise in a run: one sentence with part, package, call and line; and what it costs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.training.guard import Guard, PartError
from distillkit.training.trainer import Trainer
from distillkit_nitrofusion.losses.hinge import HingeConfig
from tests.distillkit.training.guard.spoilt import TORN, spoilt, told, torn
from tests.distillkit.world import (
    THEIRS,
    MeanGuessConfig,
    brought_by_theirs,
    made_up_loss,
    trainer,
    world_recipe,
)


def leaves(*_: Any, **__: Any) -> Any:
    sys.exit(0)


HINGE: Any = HingeConfig().build(None, None)  # type: ignore[arg-type]


class TornAfterStep(HingeConfig):
    def build(self, *args: Any) -> Any:
        loss: Any = super().build(*args)
        loss.after_critic_step = torn
        return loss


@pytest.mark.parametrize(
    ("part", "name", "call"),
    [
        (made_up_loss(torn, HINGE.student), "loss 'made-up'", "critic()"),
        (made_up_loss(HINGE.critic, torn), "loss 'made-up'", "student()"),
        (spoilt(ExamplePoolConfig, "draw", torn), "pool 'example'", "draw()"),
        (spoilt(ExampleBackboneConfig, "features", torn), "backbone 'example'", "features()"),
        (spoilt(ExampleTeacherConfig, "sample", torn), "teacher 'example'", "sample()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_exception_in_a_method_is_one_sentence_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: ComponentConfig, name: str, call: str
) -> None:
    assert told(monkeypatch, tmp_path, part) == (f"{name} {THEIRS} failed in {call}: {TORN}")


@pytest.mark.parametrize(
    ("part", "call"),
    [
        (spoilt(ExamplePoolConfig, "reset", torn), "reset()"),
        (TornAfterStep(), "after_critic_step()"),
    ],
)
def test_an_exception_after_the_step_is_one_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: ComponentConfig, call: str
) -> None:
    """Heads have moved by then; the last checkpoint has not."""
    brought_by_theirs(monkeypatch, part)
    place: dict[str, Any] = {"losses": [part]} if part.socket == "loss" else {part.socket: part}
    run = trainer(world_recipe(**place), tmp_path)
    with pytest.raises(PartError, match=re.escape(f"{THEIRS} failed in {call}: RuntimeError")):
        run.train()


class OtherGuess(MeanGuessConfig):
    """The loss, whose network has other weights than before."""

    def build(self, *args: Any) -> Any:
        loss = super().build(*args)
        loss.bias = torch.nn.Linear(2, 1)
        return loss


class OtherStudent(ExampleStudentConfig):
    def build(self, *args: Any) -> Any:
        network = super().build(*args)
        network.module = torch.nn.Conv2d(7, 4, 1)
        return network


class OtherPool(ExamplePoolConfig):
    def build(self, channels: tuple[int, ...], seed: int) -> Any:
        return super().build(tuple(n + 1 for n in channels), seed)


@pytest.mark.parametrize(
    ("before", "now", "call"),
    [
        (ExamplePoolConfig, OtherPool, "loading its heads from the checkpoint"),
        (ExampleStudentConfig, OtherStudent, "loading its weights from the checkpoint"),
        (MeanGuessConfig, OtherGuess, "loading its network from the checkpoint"),
    ],
)
def test_a_part_that_has_another_shape_when_its_run_is_resumed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Any, now: Any, call: str
) -> None:
    brought_by_theirs(monkeypatch, now())

    def run(part: ComponentConfig) -> Trainer:
        place: dict[str, Any] = {"losses": [part]} if part.socket == "loss" else {part.socket: part}
        refinement = {"type": "fixed", "steps": 1, "iterations": 1}
        return trainer(world_recipe(refinement=refinement, refresh=None, **place), tmp_path)

    run(before()).train()
    with pytest.raises(PartError) as caught:
        run(now()).train(resume=True)
    said, name = str(caught.value), f"{now().socket} '{now().name()}'"
    assert said.startswith(f"{name} {THEIRS} failed in {call}: RuntimeError: ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("part", "call"),
    [
        (spoilt(ExamplePoolConfig, "draw", leaves), "draw()"),
        (made_up_loss(leaves, HINGE.student), "critic()"),
    ],
)
def test_a_part_that_exits_does_not_end_the_run_as_if_it_were_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: ComponentConfig, call: str
) -> None:
    assert f"failed in {call}: SystemExit: 0 (" in told(monkeypatch, tmp_path, part)


def test_what_the_user_can_mend_keeps_its_own_sentence() -> None:
    with (
        pytest.raises(UserError, match=r"^prompts: no such file$"),
        Guard("prompts 'x'")("build()"),
    ):
        raise UserError("prompts: no such file")


def test_a_check_that_passed_is_not_repeated() -> None:
    asked: list[str] = []
    guard = Guard("pool 'x'")
    for call in ("draw()", "draw()", "heads", "draw()"):
        guard.once(call, lambda call=call: asked.append(call))  # type: ignore[misc]
    assert asked == ["draw()", "heads"]


def test_parts_that_keep_their_contract_are_not_looked_at_twice(tmp_path: Path) -> None:
    """No cost after the first use: a panel that goes wrong later is another matter."""
    run = trainer(world_recipe(), tmp_path)
    looked: list[int] = []
    guard = run.state.critics[0].guard("pool")
    inner = guard.check

    def counted(call: str, flaw: Any) -> None:
        looked.append(1)
        inner(call, flaw)

    guard.check = counted  # type: ignore[method-assign]
    run.step(0)
    first = list(looked)
    run.step(1)
    assert looked == first == [1, 1]

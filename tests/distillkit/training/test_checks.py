"""Runs that can't learn are refused in their first iterations, in a sentence that says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillkit.configs import LossConfig
from distillkit.errors import UserError
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.recipe.schema import WarmupConfig
from distillkit.training.callbacks import Callback
from distillkit.training.checks import TURNS, CannotLearnError
from distillkit.training.guard import PartError
from distillkit.training.metrics import Diverged
from distillkit.training.trainer import Trainer
from distillkit_nitrofusion.losses.hinge import HingeConfig
from tests.distillkit.world import (
    THEIRS,
    MeanGuessConfig,
    brought_by_theirs,
    everything,
    made_up_loss,
    trainer,
    world_recipe,
)

HINGE: Any = HingeConfig().build(None, None)  # type: ignore[arg-type]
REGRESSION = WarmupConfig(student=2, losses=[{"type": "regression"}])


def told(run: Trainer, kind: type[UserError], iterations: int = 1) -> str:
    """What the run is stopped with in the last of these iterations; the student has not moved."""
    before = everything(run)
    for i in range(iterations - 1):
        run.step(i)
    with pytest.raises(kind) as caught:
        run.step(iterations - 1)
    after = everything(run)
    if iterations == 1:
        assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith("student."))
    return str(caught.value)


@pytest.mark.parametrize("pool", [{}, {"pool": None, "backbone": None, "refresh": None}])
def test_a_loss_without_a_word_for_the_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: dict[str, Any]
) -> None:
    loss = made_up_loss(student=lambda batch: None)
    brought_by_theirs(monkeypatch, loss)
    assert told(trainer(world_recipe(losses=[loss], **pool), tmp_path), CannotLearnError) == (
        f"No loss trains the student: loss 'made-up' {THEIRS} returned None. Add a loss with a "
        "term for the student to `losses`."
    )


@pytest.mark.parametrize(
    "term",
    [
        lambda batch: batch.fake_BCHW.detach().square().mean(),
        lambda batch: batch.real_BCHW.square().mean(),
        lambda batch: batch.critic_logits()[0].real_BK.detach().mean(),
        lambda batch: torch.tensor(1.0),
    ],
    ids=["detached", "of the teacher alone", "of the critics alone", "constant"],
)
def test_a_students_term_that_does_not_depend_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, term: Any
) -> None:
    loss = made_up_loss(student=term)
    brought_by_theirs(monkeypatch, loss)
    sentence = told(trainer(world_recipe(losses=[loss]), tmp_path), CannotLearnError)
    assert sentence.startswith(
        "The student's loss does not depend on the student: the term of loss 'made-up' "
        f"{THEIRS} is detached or a constant."
    )


@pytest.mark.parametrize(
    ("player", "value", "what"),
    [
        ("student", 0.5, "0.5"),
        ("critic", 3, "3"),
        ("student", torch.zeros(4), "a tensor (4,)"),
        ("critic", "low", "'low'"),
    ],
)
def test_a_term_that_is_no_scalar_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, player: str, value: Any, what: str
) -> None:
    terms = {"critic": HINGE.critic, "student": HINGE.student} | {player: lambda batch: value}
    loss = made_up_loss(**terms)
    brought_by_theirs(monkeypatch, loss)
    assert told(trainer(world_recipe(losses=[loss]), tmp_path), PartError) == (
        f"loss 'made-up' {THEIRS} breaks its contract: {player}() returned {what}, not a scalar "
        "tensor or None"
    )


def test_a_gradient_that_goes_around_the_students_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not reach the student: gradients are passed on from x_0-hat alone."""

    class Around(LossConfig):
        type: Any = "around"

        def build(self, teacher: Any, network: Any) -> Any:
            weights = list(network.module.parameters())
            return made_up_loss(student=lambda batch: sum(p.square().sum() for p in weights)).build(
                teacher, network
            )  # type: ignore[attr-defined]

    loss = Around()
    brought_by_theirs(monkeypatch, loss)
    recipe = world_recipe(losses=[HingeConfig(), loss])
    sentence = told(trainer(recipe, tmp_path), CannotLearnError)
    assert sentence.startswith(f"The term of loss 'around' {THEIRS} for the student does not")


def test_a_critic_warmup_that_trains_no_critic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = made_up_loss(student=lambda batch: batch.fake_BCHW.square().mean())
    brought_by_theirs(monkeypatch, loss)
    recipe = world_recipe(losses=[loss], warmup=WarmupConfig(critic=2))
    assert told(trainer(recipe, tmp_path), CannotLearnError) == (
        "No loss trains the critics, so `warmup.critic` trains nothing: loss 'made-up' "
        f"{THEIRS} has no term for them."
    )


def test_a_warmup_that_trains_says_nothing_of_the_losses_after_it(tmp_path: Path) -> None:
    """The student learns in its warm-up by regression; in the game no loss speaks to it."""
    recipe = world_recipe(losses=[made_up_loss(HINGE.critic)], warmup=REGRESSION)
    run = trainer(recipe, tmp_path)
    assert told(run, CannotLearnError, 3).startswith("No loss trains the student")


def silent(batch: Any) -> Tensor:
    return 0 * batch.fake_BCHW.mean()


def test_a_run_that_is_too_short_to_be_refused_says_that_nothing_was_learned(
    tmp_path: Path,
) -> None:
    said: list[str] = []

    class Listener(Callback):
        def on_message(self, text: str) -> None:
            said.append(text)

    recipe = world_recipe(
        losses=[made_up_loss(HINGE.critic, silent)],
        refinement={"type": "fixed", "steps": 1, "iterations": 3},
    )
    trainer(recipe, tmp_path, Listener()).train()
    [told_of] = [text for text in said if "No gradient" in text]
    assert told_of.startswith("No gradient has reached the student in its 3 updates: what is")


def test_a_gradient_that_is_not_finite_names_the_loss_that_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sqrt at 0: its value is 0, and its slope is not finite."""
    loss = made_up_loss(student=lambda batch: (0 * batch.fake_BCHW).square().sum().sqrt())
    brought_by_theirs(monkeypatch, loss)
    run = trainer(world_recipe(losses=[HingeConfig(), loss]), tmp_path)
    sentence = told(run, Diverged)
    assert sentence.startswith("The student's gradient is nan.")
    assert sentence.endswith(f" Look at loss 'made-up' {THEIRS}.")


def silent_critic(batch: Any) -> Tensor:
    return 0 * HINGE.critic(batch)


@pytest.mark.parametrize(
    ("terms", "player", "what"),
    [
        ((HINGE.critic, silent), "student", "the student's weights"),
        ((silent_critic, HINGE.student), "critic", "the drawn heads"),
        ((lambda batch: None, HINGE.student), "critic", "the drawn heads"),
    ],
    ids=["student", "critic", "no term for the critics"],
)
def test_a_player_without_any_gradient_stops_the_run_after_twenty_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terms: Any, player: str, what: str
) -> None:
    """Nineteen silent updates pass, for heads may start silent; the twentieth does not."""
    loss = made_up_loss(*terms)
    brought_by_theirs(monkeypatch, loss)
    assert TURNS == 20
    run = trainer(world_recipe(losses=[loss]), tmp_path)
    assert told(run, CannotLearnError, 20) == (
        f"No gradient has reached {what} in 20 updates. Look at loss 'made-up' {THEIRS}: its term "
        f"for the {player} should depend on `batch.{player}_logits()`, and pool, backbone and "
        "heads must not detach what they are given."
    )


@pytest.mark.parametrize("updates", ["simultaneous", "alternating"])
def test_silent_updates_of_critics_are_counted_once(tmp_path: Path, updates: str) -> None:
    """Where the student follows in the same iteration, that is no second update of the critics."""
    loss = made_up_loss(silent_critic, lambda batch: batch.fake_BCHW.square().mean())
    optim = world_recipe().optim.model_copy(update={"updates": updates})
    recipe = world_recipe(
        losses=[loss], optim=optim, refinement={"type": "fixed", "iterations": 30}
    )
    assert "the drawn heads in 20 updates" in told(trainer(recipe, tmp_path), CannotLearnError, 20)


def test_silent_updates_are_counted_player_by_player(tmp_path: Path) -> None:
    """With three critic updates for each of its own the student is silent after 60 iterations."""
    loss = made_up_loss(HINGE.critic, silent)
    optim = world_recipe().optim.model_copy(update={"critic_updates": 3})
    refinement = {"type": "fixed", "steps": 1, "iterations": 80}
    recipe = world_recipe(losses=[loss], optim=optim, refinement=refinement)
    assert "in 20 updates" in told(trainer(recipe, tmp_path), CannotLearnError, 60)


def test_heads_that_start_silent_pass(tmp_path: Path) -> None:
    """The student's first gradient is zero; once the critics have learned a little it is not."""
    pool = world_recipe().pool.model_copy(update={"zero_init": True})
    refinement = {"type": "fixed", "steps": 1, "iterations": 30}
    run = trainer(world_recipe(pool=pool, refinement=refinement), tmp_path)
    first = run.step(0)
    assert first.norm("student") == 0
    assert (first.norm("critic") or 0) > 0
    norms = [run.step(i).norm("student") for i in range(1, 30)]
    assert all(norm is not None and norm > 0 for norm in norms[5:])


def test_a_loss_with_a_network_of_its_own_is_a_critic_that_learns(tmp_path: Path) -> None:
    refinement = {"type": "fixed", "steps": 1, "iterations": 25}
    fields: dict[str, Any] = {"pool": None, "backbone": None, "refresh": None}
    recipe = world_recipe(losses=[MeanGuessConfig()], refinement=refinement, **fields)
    trainer(recipe, tmp_path).train()


def test_the_sentence_comes_out_of_a_whole_run(tmp_path: Path) -> None:
    """Nothing is published, and no checkpoint claims to be one of a run that trains."""
    loss = made_up_loss(HINGE.critic, lambda batch: batch.fake_BCHW.detach().mean())
    run = trainer(world_recipe(losses=[loss]), tmp_path)
    with pytest.raises(CannotLearnError, match=re.escape("is detached or a constant")):
        run.train()
    assert run.checkpoints.iterations() == []
    assert not run.folder.student.exists()


def test_a_regression_alone_may_keep_its_pool(tmp_path: Path) -> None:
    """As in a study's control: no loss asks for logits, so no head trains."""
    recipe = world_recipe(losses=[{"type": "regression"}], refresh=None)
    run = trainer(recipe, tmp_path)
    before = everything(run)
    for i in range(min(TURNS + 2, len(run.schedule))):
        metrics = run.step(i)
        assert metrics.accuracy == {}
    after = everything(run)
    kept = [name for name in before if "heads" in name and not name.endswith(".judged")]
    assert all(torch.equal(after[name], before[name]) for name in kept)


def test_a_regression_alone_may_begin_with_several_steps(tmp_path: Path) -> None:
    """It leaves them out: the student learns in its single steps, wherever those come."""
    refinement = ExampleRefinementConfig(iterations=6, longest=2)
    recipe = world_recipe(losses=[{"type": "regression"}], refinement=refinement)
    run = trainer(recipe, tmp_path)
    assert [run.schedule.spec(i).steps for i in range(6)] == [2, 2, 1, 1, 1, 1]
    before = everything(run)
    run.train()
    after = everything(run)
    moved = {k for k, v in before.items() if k.startswith("student.") and (after[k] != v).any()}
    assert moved


@pytest.mark.parametrize("iterations", [3, TURNS + 5])
def test_a_run_that_never_has_a_term_for_the_student_is_refused(
    tmp_path: Path, iterations: int
) -> None:
    """A short one at its end, and a long one after twenty updates; nothing is published."""
    refinement = {"type": "fixed", "steps": 2, "iterations": iterations}
    recipe = world_recipe(losses=[{"type": "regression"}], refinement=refinement)
    run = trainer(recipe, tmp_path)
    with pytest.raises(CannotLearnError) as caught:
        run.train()
    assert str(caught.value) == (
        "No loss trains the student: loss 'regression' of plugin 'nitrofusion' (distillkit 0.1.0) "
        "returned None for roll-outs of 2 steps. Add a loss with a term for the student to "
        "`losses`."
    )
    assert len((run.folder.path / "log.jsonl").read_text().splitlines()) <= TURNS
    assert run.checkpoints.iterations() in ([], [10])
    assert not run.folder.student.exists()

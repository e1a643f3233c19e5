"""When a run stops by itself or says what is wrong: critics that win, or that teach nothing."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillkit.training.divergence import DivergenceMonitor
from distillkit.training.metrics import Diverged, Pull, StepMetrics
from tests.distillkit.world import head_logits, iteration_spec, trainer, world_recipe


def metrics(
    wins: int,
    *,
    trains_student: bool = True,
    gradient: tuple[float, float] | None = None,
    loss: float = 0.0,
    silent: float | None = None,
    anchor: float = 0.0,
) -> StepMetrics:
    """An iteration in which critics win so many of ten pictures.

    `gradient` is the adversarial loss's in two cells, of which the teacher lies along the first;
    `anchor`: norm of another loss's; `silent`: the critics' loss where every head says 0.
    """
    found = StepMetrics(iteration_spec(trains_student=trains_student), silent=silent)
    found.add_critic(torch.tensor(loss), [head_logits("whole", 10, wins=wins)])
    if anchor:
        found.add_student(torch.tensor(0.0), [Pull("b", torch.tensor([[[[anchor]]]]), None)])
    if gradient is not None:
        toward = torch.tensor([[[[-1.0, 0.0]]]])
        found.add_student(torch.tensor(0.0), [Pull("a", torch.tensor([[[gradient]]]), toward)])
        found.adversarial.add("a")
    found.read(SimpleNamespace(device="cpu", num_processes=1))
    return found


def update_often(monitor: DivergenceMonitor, often: int, of: StepMetrics) -> list[int]:
    """Numbers of the updates, from 1, that gave advice."""
    return [n for n in range(1, often + 1) if monitor.update(of)]


def test_critics_that_always_win_stop_the_run() -> None:
    """The running mean starts at 0.5: after n iterations at 1 it is 1 - 0.5 * 0.99^n.

    That passes 0.995 at n = log(0.01) / log(0.99) = 458.2.
    """
    monitor = DivergenceMonitor()
    update_often(monitor, 458, metrics(10))
    with pytest.raises(Diverged, match=r"they have won.*optim.critic.lr"):
        monitor.update(metrics(10))


def test_critics_that_lose_now_and_then_stop_nothing() -> None:
    assert update_often(DivergenceMonitor(), 1000, metrics(8)) == []


def test_the_critics_warm_up_does_not_count() -> None:
    monitor = DivergenceMonitor()
    fresh = monitor.state.clone()
    update_often(monitor, 1000, metrics(10, trains_student=False))
    assert torch.equal(monitor.state, fresh)
    assert float(monitor.state[0]) == 0.5


def test_critics_that_teach_nothing_are_told_of_now_and_then() -> None:
    """Accuracy 0.5, and a hundredth of the anchor's gradient: the mean share, 1 at first, is
    0.01 + 0.99 * 0.99^n.

    Below 0.05 from n = 320 on: the first word comes 299 iterations later, then every 300.
    """
    monitor = DivergenceMonitor()
    blind = metrics(5, gradient=(0.0, 1.0), anchor=100.0)
    assert update_often(monitor, 1000, blind) == [619, 919]
    advice = next(filter(None, (monitor.update(blind) for _ in range(300))))
    assert "right 50.0% of the time" in advice
    assert "optim.student.lr" in advice


@pytest.mark.parametrize(
    ("wins", "anchor"), [(6, 100.0), (5, 1.0), (5, 0.0)], ids=["see", "pull", "alone"]
)
def test_critics_that_see_or_pull_get_no_word(wins: int, anchor: float) -> None:
    """Right half of the time and at right angles, they may still bring the pictures nearer."""
    game = metrics(wins, gradient=(0.0, 1.0), anchor=anchor)
    assert game.adversarial_cosine == 0
    assert update_often(DivergenceMonitor(), 2000, game) == []


def test_a_loss_at_its_silent_value_without_a_gradient_is_told_of() -> None:
    """Right 60 % of the time, straight to the teacher; but |loss / silent - 1|, 1 at first, goes to
    0.005, and the gradient's share, 1 at first, to 0.01: below 0.01 from n = 527 on
    (0.005 + 0.995 * 0.99^n), below 0.05 before that; the first word comes 299 iterations later.
    """
    monitor = DivergenceMonitor()
    silent = metrics(6, gradient=(1.0, 0.0), loss=2.01, silent=2.0, anchor=100.0)
    assert silent.adversarial_ratio == pytest.approx(0.01)
    assert update_often(monitor, 1000, silent) == [826]
    advice = next(filter(None, (monitor.update(silent) for _ in range(300))))
    assert "their loss was 2.010 where heads that always say 0 have 2.000" in advice
    assert "0.01 of the other losses' gradient" in advice


@pytest.mark.parametrize(("loss", "anchor"), [(2.01, 1.0), (1.9, 100.0)], ids=["pulls", "learns"])
def test_a_silent_loss_alone_or_a_weak_gradient_alone_is_no_failure(
    loss: float, anchor: float
) -> None:
    game = metrics(6, gradient=(1.0, 0.0), loss=loss, silent=2.0, anchor=anchor)
    assert update_often(DivergenceMonitor(), 2000, game) == []


@pytest.mark.parametrize(
    ("losses", "silent"),
    [
        ([{"type": "hinge", "weight": 0.5}], 1.0),
        ([{"type": "relativistic-paired"}], math.log(2)),
        ([{"type": "non-saturating", "r1": {}}, {"type": "regression"}], 2 * math.log(2)),
        ([{"type": "least-squares"}, {"type": "distribution-matching"}], None),
        ([{"type": "regression"}], None),
    ],
)
def test_the_silent_value_is_what_the_losses_say_of_zeros(
    losses: list[dict[str, Any]], silent: float | None, tmp_path: Path
) -> None:
    """Hinge 1 + 1, logistic log 2 a term. DMD2's term for its fake score is no matter of logits."""
    found = trainer(world_recipe(losses=losses), tmp_path).step(0).silent
    assert found == (None if silent is None else pytest.approx(silent))

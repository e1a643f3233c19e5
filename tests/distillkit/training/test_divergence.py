"""When a run stops by itself or says what is wrong: critics that win, or that teach nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from distillkit.training.divergence import DivergenceMonitor
from distillkit.training.metrics import Diverged, Pull, StepMetrics
from tests.distillkit.world import head_logits, iteration_spec


def metrics(
    wins: int, *, trains_student: bool = True, gradient: tuple[float, float] | None = None
) -> StepMetrics:
    """An iteration in which critics win so many of ten pictures.

    `gradient` is the adversarial loss's in two cells, of which the teacher lies along the first.
    """
    found = StepMetrics(iteration_spec(trains_student=trains_student))
    found.add_critic(torch.tensor(0.0), [head_logits("whole", 10, wins=wins)])
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
    """Accuracy 0.5, and a step at right angles: the mean cosine, 1 at first, is 0.99^n.

    Below 0.02 from n = 390 on: the first word comes 299 iterations later, then every 300.
    """
    monitor = DivergenceMonitor()
    blind = metrics(5, gradient=(0.0, 1.0))
    assert blind.adversarial_cosine == 0
    assert update_often(monitor, 1000, blind) == [689, 989]
    advice = next(filter(None, (monitor.update(blind) for _ in range(300))))
    assert "right 50.0% of the time" in advice
    assert "optim.student.lr" in advice


@pytest.mark.parametrize(
    ("wins", "gradient"), [(6, (0.0, 1.0)), (5, (1.0, 1.0))], ids=["see", "teach"]
)
def test_critics_that_see_or_teach_something_get_no_word(
    wins: int, gradient: tuple[float, float]
) -> None:
    assert update_often(DivergenceMonitor(), 2000, metrics(wins, gradient=gradient)) == []

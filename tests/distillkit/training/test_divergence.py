"""When a run stops by itself: a loss that is not finite, critics that have won."""

from __future__ import annotations

import math

import pytest
import torch

from distillkit.recipe.schema import StudentAdamWConfig
from distillkit.training.divergence import Diverged, DivergenceMonitor, StepMetrics
from distillkit.training.schedule import IterationSpec


def metrics(
    accuracy: float = 0.5, *, critic: float = 0.0, trains_student: bool = True
) -> StepMetrics:
    """An iteration's metrics, of two micro-batches with half of the losses each."""
    spec = IterationSpec(
        phase="1-step",
        losses=[],
        trains_student=trains_student,
        trains_critic=True,
        steps=1,
        optim=StudentAdamWConfig(lr=1e-3),
        resets_optimizer=False,
        ends_stage=False,
    )
    found = StepMetrics(spec)
    for _ in range(2):
        found.add_critic(torch.tensor(critic / 2), {"whole t10": torch.tensor(accuracy)})
        found.add_student(torch.tensor(0.25))
    return found


def update_often(monitor: DivergenceMonitor, often: int, of: StepMetrics) -> DivergenceMonitor:
    for _ in range(often):
        monitor.update(of)
    return monitor


def test_metrics_are_sums_of_losses_and_means_of_accuracies() -> None:
    found = metrics(critic=3.0)
    found.add_critic(torch.tensor(1.0), {"whole t10": torch.tensor(0.8), "b": torch.tensor(1.0)})
    assert (found.critic, found.student) == (4.0, 0.5)
    assert found.accuracy == pytest.approx({"b": 1.0, "whole t10": 0.6})
    assert found.mean_accuracy == pytest.approx(0.8)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_told_with_what_to_try(loss: float) -> None:
    metrics(critic=1.0).check_finite()
    with pytest.raises(Diverged, match=rf"critic's loss is {loss}.*optim.critic.lr"):
        metrics(critic=loss).check_finite()


def test_critics_that_always_win_stop_the_run() -> None:
    """The running mean starts at 0.5: after n iterations at 1 it is 1 - 0.5 * 0.99^n.

    That passes 0.995 at n = log(0.01) / log(0.99) = 458.2.
    """
    monitor = update_often(DivergenceMonitor(), 458, metrics(1.0))
    with pytest.raises(Diverged, match=r"they have won.*optim.critic.lr"):
        monitor.update(metrics(1.0))


def test_critics_that_lose_now_and_then_stop_nothing() -> None:
    update_often(DivergenceMonitor(), 1000, metrics(0.8))


def test_the_critics_warm_up_does_not_count() -> None:
    monitor = update_often(DivergenceMonitor(), 1000, metrics(1.0, trains_student=False))
    assert float(monitor.state) == 0.5

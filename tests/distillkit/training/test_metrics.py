"""What is measured in an iteration, worked out by hand; and what is not finite stops the run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from distillkit.training.metrics import Diverged, Pull, StepMetrics
from distillkit.values import DrawnHead, HeadLogits, JudgedView, Panel, View
from tests.distillkit.world import head_logits, iteration_spec

ALONE = SimpleNamespace(device="cpu", num_processes=1)


def metrics_of(critic: float, *micro_batches: list[HeadLogits]) -> StepMetrics:
    """The metrics of micro-batches with an equal share of the losses each: the student's is 0.5."""
    found = StepMetrics(iteration_spec())
    for logits in micro_batches:
        found.add_critic(torch.tensor(critic / len(micro_batches)), logits)
        found.add_student(torch.tensor(0.5 / len(micro_batches)), [])
    found.read(ALONE)
    return found


def test_metrics_are_sums_of_losses_and_means_of_accuracies() -> None:
    """Ten pictures, of which real wins in 5, 5 and 8: 0.5, 0.5, 0.8; the mean is 0.6."""
    whole = [head_logits("whole", 10, wins=wins) for wins in (5, 5, 8)]
    other = head_logits("b", 500, wins=10)
    found = metrics_of(4.0, [whole[0]], [whole[1]], [whole[2], other])
    assert found.critic == pytest.approx(4.0)
    assert found.student == pytest.approx(0.5)
    assert found.accuracy == pytest.approx({"b t500": 1.0, "whole t10": 0.6})
    assert found.mean_accuracy == pytest.approx(0.8)


def test_a_tie_counts_half() -> None:
    tie = HeadLogits(
        view="v", level=0, head=3, t_B=torch.tensor([10, 10]),
        real_BK=torch.zeros(2, 4), fake_BK=torch.zeros(2, 4),
    )  # fmt: skip
    found = metrics_of(0.0, [tie])
    assert found.accuracy == {"v t10": 0.5}
    assert found.head_scores("") == {3: (1.0, 2.0)}


def test_margin_and_spread_by_hand() -> None:
    """Gaps of 2 and -1 of patches: their mean is 0.5. Real patches 1, 3 and 0, 0: stds 1 and 0."""
    logits = HeadLogits(
        view="v", level=0, head=0, t_B=torch.tensor([10, 10]),
        real_BK=torch.tensor([[1.0, 3.0], [0.0, 0.0]]),
        fake_BK=torch.tensor([[0.0, 0.0], [0.0, 2.0]]),
    )  # fmt: skip
    found = metrics_of(0.0, [logits])
    assert found.margin == pytest.approx({"v t10": 0.5})
    assert found.spread == pytest.approx({"v t10": 0.5})


def test_a_view_is_measured_by_pictures_whoever_judges_them() -> None:
    """A micro-batch of three pictures and one of one picture: gaps 1, 1, -1 and -3, stds 2 and 0.

    Real wins in two of four; the mean gap is -2 / 4, the mean spread (2 + 2 + 2 + 0) / 4. Means of
    the two heads would be 1/3, -4/3 and 1.
    """
    three_BK, one_BK = torch.tensor([[3.0, -1.0]] * 3), torch.full((1, 2), 0.0)
    gap_B = torch.tensor([1.0, 1.0, -1.0])
    micro_batches = [
        HeadLogits(
            view="v", level=0, head=head, t_B=torch.full((len(real_BK),), 10),
            real_BK=real_BK, fake_BK=real_BK - gap_BK,
        )
        for head, real_BK, gap_BK in ((0, three_BK, gap_B[:, None]), (1, one_BK, -3.0))
    ]  # fmt: skip
    found = metrics_of(0.0, *([each] for each in micro_batches))
    assert found.accuracy == pytest.approx({"v t10": 0.5})
    assert found.margin == pytest.approx({"v t10": -0.5})
    assert found.spread == pytest.approx({"v t10": 1.5})


def test_scores_of_heads_are_summed_by_critic() -> None:
    """Head 2 of two views: 3 of 10 and 6 of 10, in two micro-batches; of the other critic apart."""
    first = [head_logits("a", 10, wins=3, head=2), head_logits("a", 10, wins=1, head=2, critic="x")]
    second = [head_logits("b", 10, wins=6, head=2)]
    found = metrics_of(0.0, first, second)
    assert found.head_scores("") == {2: (9.0, 20.0)}
    assert found.head_scores("x") == {2: (1.0, 10.0)}
    assert set(found.accuracy) == {"a t10", "b t10", "x: a t10"}


def test_a_panels_keys_are_there_without_logits_and_say_nothing() -> None:
    """Every process has the keys of the whole panel, though none of its pictures are in a view."""
    view = View("v", 1.0, True)
    heads = (DrawnHead(0, 4),)
    panel = Panel((JudgedView(view, torch.tensor([10]), heads, rows=(0,)),))
    found = StepMetrics(iteration_spec())
    found.expect([(SimpleNamespace(name=""), panel)])
    found.read(ALONE)
    assert found.accuracy == found.margin == found.spread == {}
    assert found.mean_accuracy is None
    assert found.head_scores("") == {4: (0.0, 0.0)}


def test_a_view_has_one_key_in_all_micro_batches() -> None:
    """Timesteps 10 and 500 of one view: each alone in its micro-batch, they are mixed."""
    judged = JudgedView(View("v", 1.0, True), torch.tensor([10, 500]), (DrawnHead(0, 0),))
    found = StepMetrics(iteration_spec())
    found.expect([(SimpleNamespace(name=""), Panel((judged,)))])
    for t, real in ((10, 1.0), (500, -1.0)):
        logits = HeadLogits(
            view="v", level=0, head=0, t_B=torch.tensor([t]),
            real_BK=torch.full((1, 1), real), fake_BK=torch.zeros(1, 1),
        )  # fmt: skip
        found.add_critic(torch.tensor(0.0), [logits])
    found.read(ALONE)
    assert found.accuracy == {"v mixed t": 0.5}


def test_pulls_and_directions_by_hand() -> None:
    """Two micro-batches of one value each. Gradients 3 and 4: norm 5. To the teacher: -1 and 0.

    A step goes against the gradient: -(3 * -1 + 4 * 0) / (5 * 1) = 0.6. Without the teacher's
    sample there is no direction.
    """
    found = StepMetrics(iteration_spec())
    for gradient, toward in ((3.0, -1.0), (4.0, 0.0)):
        pulls = [
            Pull("hinge", torch.full((1, 1, 1, 1), gradient), torch.full((1, 1, 1, 1), toward)),
            Pull("other", torch.full((1, 1, 1, 1), gradient / 2), None),
        ]
        found.add_student(torch.tensor(0.0), pulls)
    found.read(ALONE)
    assert found.pulls == pytest.approx({"hinge": 5.0, "other": 2.5})
    assert found.directions == pytest.approx({"hinge": 0.6})


class TwoProcesses:
    """An accelerator whose other process measured the same."""

    device, num_processes = "cpu", 2

    def reduce(self, values: Tensor, how: str) -> Tensor:
        assert how == "sum"
        return values * 2


def test_processes_are_averaged_and_heads_scores_summed() -> None:
    """Losses and norms are means over processes, wins and pictures sums."""
    found = StepMetrics(iteration_spec(), processes=2)
    found.add_critic(torch.tensor(3.0), [head_logits("v", 10, wins=7, head=1)])
    found.add_norm("critic", torch.tensor(2.5))
    found.read(TwoProcesses())
    assert (found.critic, found.norm("critic")) == (3.0, 2.5)
    assert found.accuracy == pytest.approx({"v t10": 0.7})
    assert found.head_scores("") == {1: (14.0, 20.0)}
    assert found.norm("student") is None


@pytest.mark.parametrize("player", ["critic", "student"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_is_told_with_what_to_try(player: str, value: float, what: str) -> None:
    def measured(loss: float, norm: float) -> StepMetrics:
        found = StepMetrics(iteration_spec())
        found.add_critic(torch.tensor(loss if player == "critic" else 1.0), [])
        found.add_student(torch.tensor(loss if player == "student" else 1.0), [])
        found.add_norm(player, torch.tensor(norm))
        found.read(ALONE)
        return found

    measured(1.0, 1.0).check_finite()
    wrong: Any = {"loss": (value, 1.0), "gradient": (1.0, value)}[what]
    with pytest.raises(Diverged, match=rf"{player}'s {what} is {value}.*optim.{player}.lr"):
        measured(*wrong).check_finite()

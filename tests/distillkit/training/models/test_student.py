"""Shift arithmetic against the published grids, the roll-out, the running average."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from distillkit.examples.teacher import ExampleDenoiser
from distillkit.noising import NoiseSchedule, Prediction
from distillkit.training.models.student import EMA, Student, noise_grid, shifted
from distillkit.values import Condition
from tests.distillkit.world import world_schedule


@pytest.mark.parametrize(
    ("steps", "grid"),
    [(1, [999]), (2, [999, 499]), (3, [999, 749, 499]), (4, [999, 749, 499, 249])],
)
def test_noise_grid_is_the_published_one(steps: int, grid: list[int]) -> None:
    assert noise_grid(steps) == grid


@pytest.mark.parametrize("steps", [0, 5])
def test_roll_outs_have_one_to_four_steps(steps: int) -> None:
    with pytest.raises(ValueError, match=f"1 to 4 steps, not {steps}"):
        noise_grid(steps)


@pytest.mark.parametrize(
    ("shift", "grid"), [(250, [249, 187, 124, 62]), (500, [499, 374, 249, 124])]
)
def test_model_grid_is_the_published_one(shift: int, grid: list[int]) -> None:
    assert [shifted(t, shift) for t in noise_grid(4)] == grid


class Recorder(ExampleDenoiser):
    """Says zero, and remembers when and with which gradient mode it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[int, bool]] = []

    def __call__(self, x_t_BCHW: Any, t_B: Any, cond: Condition) -> Any:
        self.asked.append((int(t_B[0]), torch.is_grad_enabled()))
        return super().__call__(x_t_BCHW, t_B, cond) * 0


def test_roll_out_runs_at_shifted_times_with_gradients_in_the_last_step_alone() -> None:
    network = Recorder()
    student = Student(network, world_schedule(), timestep_shift=250)
    cond = Condition({"told": torch.zeros(2, 2)})
    x_T, renoise = torch.randn(2, 4, 8, 8), torch.randn(3, 2, 4, 8, 8)
    x_0 = student.rollout(x_T, cond, 4, renoise)
    assert network.asked == [(249, False), (187, False), (124, False), (62, True)]
    assert x_0.requires_grad


@pytest.mark.parametrize(("steps", "cleared"), [(1, []), (2, [1]), (4, [3])])
def test_sixteen_bit_copies_are_made_anew_for_the_step_with_gradients(
    monkeypatch: pytest.MonkeyPatch, steps: int, cleared: list[int]
) -> None:
    """Autocast's copies of weights from steps without gradients have no history (torch #112583).

    They are dropped after those steps, which newer versions of torch do by themselves.
    """
    network = Recorder()
    after: list[int] = []
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: after.append(len(network.asked)))
    student = Student(network, world_schedule(), timestep_shift=250)
    cond = Condition({"told": torch.zeros(2, 2)})
    x_T, renoise = torch.randn(2, 4, 8, 8), torch.randn(3, 2, 4, 8, 8)
    student.rollout(x_T, cond, steps, renoise)
    assert after == []
    network.asked.clear()
    with torch.autocast("cpu", torch.bfloat16):
        student.rollout(x_T, cond, steps, renoise)
        assert after == cleared


def test_roll_out_of_two_steps_by_hand() -> None:
    """A network that says 0: x_0 = x_t / sqrt(a_t'); renoised at the unshifted 499."""
    schedule = world_schedule()
    student = Student(Recorder(), schedule, timestep_shift=500)
    cond = Condition({"told": torch.zeros(1, 2)})
    x_T, renoise = torch.randn(1, 4, 8, 8), torch.randn(1, 1, 4, 8, 8)
    a = schedule.alpha_bar_T
    first = x_T / a[499].sqrt()
    second = (a[499].sqrt() * first + (1 - a[499]).sqrt() * renoise[0]) / a[249].sqrt()
    torch.testing.assert_close(student.rollout(x_T, cond, 2, renoise), second)


class Flow(ExampleDenoiser):
    """Says v = x_t, whatever it is asked."""

    prediction: Prediction = "flow"

    def __call__(self, x_t_BCHW: Any, t_B: Any, cond: Condition) -> Any:
        return x_t_BCHW


def test_an_euler_step_along_the_flow_by_hand() -> None:
    """v = x: from sigma 1 to 0.75, x = 1 + (0.75 - 1) * 1 = 0.75; then x_0 = 0.75 - 0.75 * 0.75."""
    schedule = NoiseSchedule.flow_matching(shift=3.0)
    student = Student(Flow(), schedule, 1000, (999, 749, 499, 249), "euler")
    x_T, cond = torch.ones(1, 4, 2, 2), Condition({"told": torch.zeros(1, 2)})
    x_0 = student.rollout(x_T, cond, 2, torch.full((1, 1, 4, 2, 2), float("nan")))
    torch.testing.assert_close(x_0, torch.full_like(x_T, 0.75 - 0.75 * 0.75))


def test_levels_are_the_students_own_and_fractions_are_not_rounded() -> None:
    network = Recorder()
    student = Student(network, world_schedule(), 500, (900.5, 700, 400, 101))
    cond = Condition({"told": torch.zeros(1, 2)})
    student.rollout(torch.randn(1, 4, 8, 8), cond, 3, torch.randn(2, 1, 4, 8, 8))
    assert student.grid.visits(3) == [(900.5, 450.25), (700, 350), (400, 200)]
    assert [t for t, _ in network.asked] == [450, 350, 200]


@pytest.mark.parametrize(("reached", "asked"), [(1, 1), (2, 2), (3, 3), (4, 3)])
def test_gradients_reach_as_many_of_the_last_steps_as_asked(reached: int, asked: int) -> None:
    network = Recorder()
    student = Student(network, world_schedule(), 250, gradient_steps=reached)
    cond = Condition({"told": torch.zeros(2, 2)})
    student.rollout(torch.randn(2, 4, 8, 8), cond, 3, torch.randn(2, 2, 4, 8, 8))
    assert [with_gradient for _, with_gradient in network.asked] == [False] * (3 - asked) + (
        [True] * asked
    )
    network.asked.clear()
    with torch.no_grad():
        student.rollout(torch.randn(2, 4, 8, 8), cond, 3, torch.randn(2, 2, 4, 8, 8))
    assert not any(with_gradient for _, with_gradient in network.asked)


def test_running_average_by_hand() -> None:
    """Decay 1/10 at first: 0.1 * 1 + 0.9 * 2 = 1.9; then 0.15, not 2/11: 0.15 * 1.9 + 0.85 * 2."""
    module = nn.Linear(1, 1)
    nn.init.constant_(module.weight, 1.0)
    average = EMA(module, decay=0.15)
    nn.init.constant_(module.weight, 2.0)
    average.update()
    average.update()
    assert float(average.weights["weight"]) == pytest.approx(1.985)
    with average.applied_to(module):
        assert module.weight.item() == pytest.approx(1.985)
    assert module.weight.item() == 2.0

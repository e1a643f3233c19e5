"""x_0 to x_t and back: the schedule's published numbers, and every parameterisation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillkit.noising import NoiseSchedule
from tests.distillkit.world import world_schedule


def test_error_of_the_network_grows_as_the_schedule_says() -> None:
    """sqrt((1 - alpha_bar) / alpha_bar): 14.6, 5.1, 1.62, 1.16, 0.70 at these timesteps."""
    schedule = world_schedule()
    t_B = torch.tensor([999, 800, 500, 399, 250])
    x, zero = torch.zeros(5, 1, 1, 1), torch.zeros(5, 1, 1, 1)
    error = schedule.to_x_0(zero, x, t_B, "epsilon") - schedule.to_x_0(zero + 1, x, t_B, "epsilon")
    expected = [14.6, 5.1, 1.62, 1.16, 0.70]
    for value, wanted in zip(error.flatten().tolist(), expected, strict=True):
        assert value == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_x_0_comes_back_from_every_parameterisation(prediction: Any) -> None:
    schedule = world_schedule()
    rng = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(3, 4, 2, 2, generator=rng), torch.randn(3, 4, 2, 2, generator=rng)
    t_B = torch.tensor([10, 400, 900])
    a = schedule.alpha_bar(t_B)
    said = {"epsilon": eps, "sample": x_0, "v_prediction": a.sqrt() * eps - (1 - a).sqrt() * x_0}
    x_t = schedule.add(x_0, eps, t_B)
    found = schedule.to_x_0(said[prediction], x_t, t_B, prediction)
    torch.testing.assert_close(found, x_0, rtol=1e-3, atol=1e-4)


def test_fractional_timesteps_lie_between_whole_ones() -> None:
    schedule = world_schedule()
    whole = schedule.alpha_bar(torch.tensor([400, 401])).flatten()
    middle = float(schedule.alpha_bar(torch.tensor([400.5])))
    assert whole[1] < middle < whole[0]
    same = schedule.alpha_bar(torch.tensor([400.0, 401.0])).flatten()
    torch.testing.assert_close(same, whole)


def test_a_schedule_without_terminal_signal_gives_no_nan_and_refuses_epsilon() -> None:
    """alpha_bar 1, 0.5, 0: at the last level x_0 is told by v (x_0 = -v), and not by epsilon."""
    schedule = NoiseSchedule(torch.tensor([1.0, 0.5, 0.0]))
    assert bool(schedule.alpha_bar(torch.tensor([1.5, 2.0])).isfinite().all())
    assert schedule.defines_x_0(2, "v_prediction")
    assert schedule.defines_x_0(1, "epsilon")
    assert not schedule.defines_x_0(2, "epsilon")
    x_t, v = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0)
    assert float(schedule.to_x_0(v, x_t, torch.tensor([2]), "v_prediction")) == -3.0
    # An epsilon that is a little off says nothing of x_0, but leaves it finite.
    assert bool(schedule.to_x_0(v, x_t, torch.tensor([2]), "epsilon").isfinite())


def test_flow_matching_by_hand() -> None:
    """Shift 3: s = 0.25, 0.5, 0.75, 1 become 3 s / (1 + 2 s) = 0.5, 0.75, 0.9, 1; x_0 = x - s v."""
    schedule = NoiseSchedule.flow_matching(shift=3.0, levels=4)
    t_B = torch.arange(4)
    alpha, sigma = (each.flatten() for each in schedule.alpha_sigma(t_B))
    torch.testing.assert_close(sigma, torch.tensor([0.5, 0.75, 0.9, 1.0]))
    torch.testing.assert_close(alpha, torch.tensor([0.5, 0.25, 0.1, 0.0]))
    torch.testing.assert_close(schedule.snr(t_B).flatten()[:2], torch.tensor([1.0, 1 / 9]))
    torch.testing.assert_close(schedule.alpha_bar(t_B).flatten()[:2], torch.tensor([0.5, 0.1]))
    # Halfway between two levels in sigma, and back.
    between = torch.tensor([0.5, 1.5, 3.0])
    sigma = schedule.alpha_sigma(between)[1].flatten()
    torch.testing.assert_close(sigma, torch.tensor([0.625, 0.825, 1.0]))
    torch.testing.assert_close(schedule.level_of(sigma).float(), between)
    x_0, eps = torch.full((4, 1, 1, 1), 2.0), torch.full((4, 1, 1, 1), -1.0)
    x_t = schedule.add(x_0, eps, t_B)
    torch.testing.assert_close(x_t.flatten(), torch.tensor([0.5, -0.25, -0.7, -1.0]))
    torch.testing.assert_close(schedule.to_x_0(eps - x_0, x_t, t_B, "flow"), x_0)
    torch.testing.assert_close(schedule.to_eps(x_0, x_t, t_B), eps)
    assert schedule.defines_x_0(3, "flow")
    assert not schedule.defines_x_0(3, "epsilon")


def test_a_flow_is_read_from_any_schedule_and_any_prediction_from_a_flow() -> None:
    x_0, eps = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), -1.0)
    for schedule in (world_schedule(), NoiseSchedule.flow_matching(3.0)):
        t_B = torch.tensor([600])
        alpha, sigma = schedule.alpha_sigma(t_B)
        x_t = schedule.add(x_0, eps, t_B)
        said = {"flow": eps - x_0, "v_prediction": alpha * eps - sigma * x_0, "epsilon": eps}
        for prediction, output in said.items():
            found = schedule.to_x_0(output, x_t, t_B, prediction)  # type: ignore[arg-type]
            torch.testing.assert_close(found, x_0, rtol=1e-4, atol=1e-4)

"""Intervals of differences: what pairing takes away, and what can't be told."""

from __future__ import annotations

import numpy as np
import pytest

from distillkit.report.paired import difference


def test_a_shift_of_every_picture_is_certain_when_paired_and_lost_when_not() -> None:
    """Pictures spread over 0 to 10; the second student is better by 0.1 on each of them."""
    a = np.linspace(0, 10, 50)[None]
    paired = difference(a, a + 0.1, same_runs=True, same_pictures=True)
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    assert paired.distinguishable
    assert paired.over == "pictures"
    apart = difference(a, a + 0.1, same_runs=True, same_pictures=False)
    assert apart.value == pytest.approx(0.1)
    assert apart.distinguishable is False


def test_the_interval_is_that_of_the_normal_law_for_many_pictures() -> None:
    """Differences of mean 0.5 and deviation 1 over 400 pictures: 0.5 +- 1.966 / 20."""
    noise = np.random.default_rng(1).standard_normal(400)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    found = difference(np.zeros((1, 400)), (noise + 0.5)[None], same_runs=True, same_pictures=True)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.0983, 0.5 + 0.0983), abs=1e-4)


def test_values_of_whole_rows_need_two_runs() -> None:
    one = difference([[1.0]], [[2.0]], same_runs=True, same_pictures=True)
    assert (one.value, one.low, one.distinguishable) == (1.0, None, None)
    # Differences 1, 2, 3: mean 2, deviation 1, and 4.303 / sqrt(3) = 2.484.
    a, b = [[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]]
    three = difference(a, b, same_runs=True, same_pictures=True)
    assert (three.low, three.high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)
    assert three.over == "runs"
    assert three.distinguishable is False
    # Not paired, by Welch: variances 1 and 4 over three runs each, so 5 / 3 of their difference,
    # with 25 / (1 / 2 + 16 / 2) = 2.94 degrees of freedom, taken as 2.
    apart = difference(a, b, same_runs=False, same_pictures=True)
    assert apart.high == pytest.approx(2 + 4.303 * (5 / 3) ** 0.5)


@pytest.mark.parametrize("runs", [2, 3, 5])
@pytest.mark.parametrize("same_runs", [True, False])
def test_chance_is_called_a_difference_one_time_in_twenty_at_most(
    runs: int, same_runs: bool
) -> None:
    draws = np.random.default_rng(0)
    alarms = [
        difference(
            draws.standard_normal((runs, 1)),
            draws.standard_normal((runs, 1)),
            same_runs=same_runs,
            same_pictures=True,
        ).distinguishable
        for _ in range(1000)
    ]
    assert np.mean(alarms) <= 0.065  # two standard deviations of the share above 0.05


def test_pictures_of_one_prompt_are_one_draw() -> None:
    """Of 50 prompts with 4 pictures each, half of the variance is the prompt's."""
    draws = np.random.default_rng(0)
    prompts = [str(n // 4) for n in range(200)]

    def alarm(known: list[str] | None) -> bool | None:
        ours = np.repeat(draws.standard_normal(50), 4) + draws.standard_normal(200)
        return difference(
            np.zeros((1, 200)),
            ours[None],
            same_runs=True,
            same_pictures=True,
            prompts=(known, known),
        ).distinguishable

    assert np.mean([alarm(prompts) for _ in range(500)]) <= 0.07
    assert np.mean([alarm(None) for _ in range(500)]) >= 0.15


def test_runs_and_pictures_both_count() -> None:
    """Pictures that all runs share spread more than the runs do: three runs do not average it."""
    draws = np.random.default_rng(0)
    alarms = []
    for _ in range(500):
        ours = draws.standard_normal((1, 300)) + 0.02 * draws.standard_normal((3, 300))
        found = difference(np.zeros((3, 300)), ours, same_runs=True, same_pictures=True)
        assert found.over == "runs and pictures"
        alarms.append(found.distinguishable)
    assert np.mean(alarms) <= 0.07

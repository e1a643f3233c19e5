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
    """Differences of mean 0.5 and deviation 1 over 400 pictures: 0.5 +- 1.96 / 20."""
    noise = np.random.default_rng(1).standard_normal(400)
    noise = (noise - noise.mean()) / noise.std()
    found = difference(np.zeros((1, 400)), (noise + 0.5)[None], same_runs=True, same_pictures=True)
    assert (found.low, found.high) == pytest.approx((0.5 - 0.098, 0.5 + 0.098), abs=0.012)


def test_values_of_whole_rows_need_three_runs() -> None:
    two = difference([[1.0], [2.0]], [[2.0], [3.0]], same_runs=True, same_pictures=True)
    assert (two.value, two.low, two.distinguishable) == (1.0, None, None)
    # Differences 1, 2 and 3: a resample's mean is at least 1 and at most 3.
    a, b = [[1.0], [2.0], [3.0]], [[2.0], [4.0], [6.0]]
    three = difference(a, b, same_runs=True, same_pictures=True)
    assert (three.low, three.high) == (1.0, 3.0)
    assert three.over == "runs"
    # One run of three falls back by 0.5: from -0.5 to 1, which zero lies in.
    mixed = difference(a, [[2.0], [1.5], [4.0]], same_runs=True, same_pictures=True)
    assert (mixed.low, mixed.high) == (-0.5, 1.0)
    assert mixed.distinguishable is False
    # Not paired, the runs' own spread counts.
    apart = difference(a, b, same_runs=False, same_pictures=True)
    assert apart.low is not None
    assert apart.low < 1.0

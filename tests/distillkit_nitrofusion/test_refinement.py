"""Bottom-up refinement: stages in order, shorter roll-outs are replayed."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from distillkit_nitrofusion.refinement import BottomUpConfig, FixedConfig

STAGES = {1: 600, 2: 200, 4: 200}


def shares(schedule: object, first: int, last: int, rounds: int = 1) -> Counter[int]:
    generator = torch.Generator().manual_seed(0)
    return Counter(schedule.steps(i, generator) for _ in range(rounds) for i in range(first, last))


def test_stages_follow_each_other() -> None:
    """600 iterations of one step, then 200 of two (600 to 799), then 200 of four."""
    schedule = BottomUpConfig(stages=STAGES).build()
    assert schedule.iterations == 1000
    assert [schedule.stage(i) for i in (0, 599, 600, 799, 800, 999)] == [
        *("1-step", "1-step", "2-step", "2-step", "4-step", "4-step")
    ]


def test_the_mix() -> None:
    """Stage 1: only 1. Stage 2: half 1, half 2. Stage 4: half 4, a quarter each 1 and 2.

    4,000 draws in each later stage: std 32 of a half, 27 of a quarter.
    """
    schedule = BottomUpConfig(stages=STAGES, replay=0.5).build()
    assert shares(schedule, 0, 600) == {1: 600}
    second, last = shares(schedule, 600, 800, 20), shares(schedule, 800, 1000, 20)
    assert set(second) == {1, 2}
    assert abs(second[2] - 2000) < 4 * 32
    assert set(last) == {1, 2, 4}
    assert abs(last[4] - 2000) < 4 * 32
    assert abs(last[1] - 1000) < 4 * 27
    assert abs(last[2] - 1000) < 4 * 27


@pytest.mark.parametrize(("replay", "expected"), [(0, {4: 200}), (1, {1, 2})])
def test_the_ends_of_replay(replay: float, expected: object) -> None:
    """0: the stage's own length throughout. 1: never."""
    drawn = shares(BottomUpConfig(stages=STAGES, replay=replay).build(), 800, 1000)
    assert drawn == expected or set(drawn) == expected


def test_stages_need_not_start_at_one() -> None:
    assert shares(BottomUpConfig(stages={2: 5, 3: 5}).build(), 0, 5) == {2: 5}


def test_the_length_depends_on_the_generator_alone() -> None:
    schedule = BottomUpConfig(stages=STAGES).build()
    expected = [schedule.steps(900, torch.Generator().manual_seed(s)) for s in range(20)]
    torch.manual_seed(1)
    assert [schedule.steps(900, torch.Generator().manual_seed(s)) for s in range(20)] == expected


def test_fixed() -> None:
    schedule = FixedConfig(steps=3, iterations=7).build()
    assert schedule.iterations == 7
    assert schedule.stage(6) == "3-step"
    assert shares(schedule, 0, 7) == {3: 7}


@pytest.mark.parametrize("iteration", [-1, 1000])
def test_an_iteration_outside_the_run(iteration: int) -> None:
    with pytest.raises(ValueError, match=f"iteration {iteration} is not one of the 1000"):
        BottomUpConfig(stages=STAGES).build().stage(iteration)

"""Refresh: 5 of 480, even shares, only the generator decides."""

from __future__ import annotations

import pytest
import torch

from distillkit_nitrofusion.refresh import (
    NeverRefreshConfig,
    OldestRefreshConfig,
    RandomRefreshConfig,
    count_due,
)

AGES = torch.zeros(480, dtype=torch.int64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("fraction", "heads", "expected"),
    [(0.01, 480, 5), (0.01, 120, 1), (0.01, 250, 3), (0.01, 12, 1), (0, 480, 0), (1, 480, 480)],
)
def test_how_many(fraction: float, heads: int, expected: int) -> None:
    """4.8 -> 5; 1.2 -> 1; 2.5 -> 3 (half up); 0.12 -> 1 (at least one); none; all."""
    assert count_due(0, 1, fraction, heads) == expected
    assert count_due(0, 2, fraction, heads) == 0


@pytest.mark.parametrize("config", [RandomRefreshConfig(), OldestRefreshConfig()])
def test_the_papers_refresh_picks_5_distinct_heads(config: RandomRefreshConfig) -> None:
    refresh = config.build()
    for seed in range(50):
        picked = refresh.pick(seed, AGES, seeded(seed))
        assert len(set(picked)) == len(picked) == 5
        assert all(0 <= head < 480 for head in picked)


def test_random_shares_are_even() -> None:
    """4,800 refreshes of 5: each head 50 times, std 7.0; chi-squared near 480, std 31."""
    refresh, generator = RandomRefreshConfig().build(), seeded(0)
    times = torch.zeros(480)
    for iteration in range(4800):
        times[list(refresh.pick(iteration, AGES, generator))] += 1
    assert times.sum() == 24_000
    assert (times - 50).abs().max() < 5 * 7
    assert abs(((times - 50) ** 2 / 50).sum() - 480) < 4 * 31


@pytest.mark.parametrize("config", [RandomRefreshConfig(), OldestRefreshConfig()])
def test_the_pick_depends_on_the_generator_alone(config: RandomRefreshConfig) -> None:
    refresh = config.build()
    first = refresh.pick(0, AGES, seeded(4))
    torch.manual_seed(99)
    assert refresh.pick(0, AGES, seeded(4)) == first
    assert refresh.pick(0, AGES, seeded(5)) != first


@pytest.mark.parametrize("config", [RandomRefreshConfig, OldestRefreshConfig])
def test_every_counts_finished_iterations(config: type[RandomRefreshConfig]) -> None:
    """Every third: after iterations 2, 5, 8 of 0 to 8."""
    refresh = config(every=3).build()
    assert [i for i in range(9) if refresh.pick(i, AGES, seeded(i))] == [2, 5, 8]


def test_oldest_goes_by_age() -> None:
    """Of ages 3, 9, 1, 9, 7 the two oldest are heads 1 and 3."""
    ages = torch.tensor([3, 9, 1, 9, 7])
    refresh = OldestRefreshConfig(fraction=0.4).build()
    assert {tuple(refresh.pick(0, ages, seeded(s))) for s in range(20)} == {(1, 3)}


def test_oldest_leaves_equals_to_the_generator() -> None:
    """Of ages 9, 5, 5, 5 two go: always head 0, and each of the others in a third of the cases.

    3,000 draws: 1,000 each, std 26.
    """
    ages, generator = torch.tensor([9, 5, 5, 5]), seeded(0)
    refresh = OldestRefreshConfig(fraction=0.5).build()
    picks = [refresh.pick(0, ages, generator) for _ in range(3000)]
    assert all(pick[0] == 0 for pick in picks)
    for head in (1, 2, 3):
        assert abs(sum(head in pick for pick in picks) - 1000) < 4 * 26


def test_oldest_lets_all_live_equally_long() -> None:
    """20 heads, one a time: after the first 20 refreshes each has gone once, then again."""
    refresh, ages = OldestRefreshConfig(fraction=0.05).build(), torch.zeros(20)
    gone: list[int] = []
    for iteration in range(40):
        ages += 1
        gone += refresh.pick(iteration, ages, seeded(iteration))
        ages[gone[-1]] = 0
    assert sorted(gone[:20]) == list(range(20))
    assert gone[20:] == gone[:20]


def test_never() -> None:
    assert list(NeverRefreshConfig().build().pick(0, AGES, seeded(0))) == []

"""Refresh: 4.8 of 480 on average, even shares, lives as long as asked; the generator decides."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from distillkit.values import HeadStats
from distillkit_nitrofusion.pool import DynamicPoolConfig, StaticPoolConfig
from distillkit_nitrofusion.refresh import (
    AccuracyRefreshConfig,
    NeverRefreshConfig,
    OldestRefreshConfig,
    RandomRefreshConfig,
    count_due,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stats(count: int = 480, **fields: Any) -> HeadStats:
    """Of heads that are all alike, but for `fields`."""
    alike = {
        "age_N": torch.zeros(count, dtype=torch.int64),
        "updates_N": torch.full((count,), 50),
        "learned_N": torch.ones(count, dtype=torch.bool),
        "accuracy_N": torch.full((count,), 0.5, dtype=torch.float64),
    }
    return HeadStats(**alike | fields)


ALL = stats()


def aged(ages: list[int] | Tensor) -> HeadStats:
    age_N = torch.as_tensor(ages)
    return stats(len(age_N), age_N=age_N)


@pytest.mark.parametrize(
    ("fraction", "heads", "every", "expected"),
    [
        (0.01, 54, 1, 54),
        (0.01, 480, 1, 480),
        (0.01, 120, 1, 120),
        (0.01, 250, 1, 250),
        (0.01, 12, 1, 12),
        (0.0001, 54, 1, 0),
        (0.01, 54, 20, 2),
        (0.1, 30, 1, 300),
        (0.07, 10, 1, 70),
        (0, 480, 1, 0),
        (1, 480, 1, 48_000),
    ],
)
def test_how_many_in_a_hundred_iterations(
    fraction: float, heads: int, every: int, expected: int
) -> None:
    """fraction * heads * 100 / every, rounded down: what a refresh leaves over is carried.

    1 % of 54 heads is 0.54 a refresh: 54 of 100 iterations replace a head. 5 refreshes at every
    20th iteration: 2.7, of which 0.7 is still to come.
    """
    counts = [count_due(i, every, fraction, heads) for i in range(100)]
    assert sum(counts) == expected
    due = fraction * heads
    allowed = {int(due), int(due) + 1} if due % 1 else {int(due)}
    refreshes = [n for i, n in enumerate(counts) if (i + 1) % every == 0]
    assert {*refreshes} <= allowed
    assert all(n == 0 for i, n in enumerate(counts) if (i + 1) % every)


def test_the_remainder_by_hand() -> None:
    """0.25 heads a refresh: the fourth, the eighth; 1.5: one, two, one, two."""
    assert [count_due(i, 1, 0.025, 10) for i in range(8)] == [0, 0, 0, 1, 0, 0, 0, 1]
    assert [count_due(i, 1, 0.15, 10) for i in range(4)] == [1, 2, 1, 2]
    assert [count_due(i, 2, 0.15, 10) for i in range(8)] == [0, 1, 0, 2, 0, 1, 0, 2]


@pytest.mark.parametrize("every", [1, 3])
def test_full_resets_take_every_head(every: int) -> None:
    """In every iteration no head that judges was ever trained: the control without any learning."""
    refresh = RandomRefreshConfig(fraction=1.0, every=every).build()
    picked = [refresh.pick(i, ALL, seeded(i)) for i in range(6)]
    assert [len(heads) for heads in picked] == [
        480 if (i + 1) % every == 0 else 0 for i in range(6)
    ]
    assert all(heads == list(range(480)) for heads in picked if heads)


@pytest.mark.parametrize("config", [RandomRefreshConfig(), OldestRefreshConfig()])
def test_the_papers_refresh_picks_4_or_5_distinct_heads(config: RandomRefreshConfig) -> None:
    """1 % of 480 is 4.8: in 50 iterations 240 heads, 4 in one of five and 5 in the others."""
    refresh = config.build()
    sizes = []
    for seed in range(50):
        picked = refresh.pick(seed, ALL, seeded(seed))
        assert len(set(picked)) == len(picked)
        assert all(type(head) is int and 0 <= head < 480 for head in picked)
        sizes.append(len(picked))
    assert sizes[:5] == [4, 5, 5, 5, 5]
    assert sum(sizes) == 240
    assert {*sizes} == {4, 5}


def test_random_shares_are_even() -> None:
    """5,000 refreshes of 4.8: each head 50 times, std 7.0; chi-squared near 480, std 31."""
    refresh, generator = RandomRefreshConfig().build(), seeded(0)
    times = torch.zeros(480)
    for iteration in range(5000):
        times[list(refresh.pick(iteration, ALL, generator))] += 1
    assert times.sum() == 24_000
    assert (times - 50).abs().max() < 5 * 7
    assert abs(((times - 50) ** 2 / 50).sum() - 480) < 4 * 31


@pytest.mark.parametrize(
    "config",
    [
        RandomRefreshConfig(),
        OldestRefreshConfig(),
        AccuracyRefreshConfig(),
        RandomRefreshConfig(updates_per_life=100),
    ],
    ids=["random", "oldest", "accuracy", "updates"],
)
def test_the_pick_depends_on_the_generator_alone(config: Any) -> None:
    refresh = config.build()
    first = refresh.pick(0, ALL, seeded(4))
    torch.manual_seed(99)
    assert refresh.pick(0, ALL, seeded(4)) == first
    assert refresh.pick(0, ALL, seeded(5)) != first


@pytest.mark.parametrize(
    "config", [RandomRefreshConfig, OldestRefreshConfig, AccuracyRefreshConfig]
)
def test_every_counts_finished_iterations(config: type[RandomRefreshConfig]) -> None:
    """Every third: after iterations 2, 5, 8 of 0 to 8."""
    refresh = config(every=3).build()
    assert [i for i in range(9) if refresh.pick(i, ALL, seeded(i))] == [2, 5, 8]


def test_oldest_goes_by_age() -> None:
    """Of ages 3, 9, 1, 9, 7 the two oldest are heads 1 and 3."""
    refresh = OldestRefreshConfig(fraction=0.4).build()
    heads = aged([3, 9, 1, 9, 7])
    assert {tuple(refresh.pick(0, heads, seeded(s))) for s in range(20)} == {(1, 3)}


def test_oldest_leaves_equals_to_the_generator() -> None:
    """Of ages 9, 5, 5, 5 two go: always head 0, and each of the others in a third of the cases.

    3,000 draws: 1,000 each, std 26.
    """
    heads, generator = aged([9, 5, 5, 5]), seeded(0)
    refresh = OldestRefreshConfig(fraction=0.5).build()
    picks = [refresh.pick(0, heads, generator) for _ in range(3000)]
    assert all(pick[0] == 0 for pick in picks)
    for head in (1, 2, 3):
        assert abs(sum(head in pick for pick in picks) - 1000) < 4 * 26


def test_oldest_lets_all_live_equally_long() -> None:
    """20 heads, one a time: after the first 20 refreshes each has gone once, then again."""
    refresh, ages = OldestRefreshConfig(fraction=0.05).build(), torch.zeros(20)
    gone: list[int] = []
    for iteration in range(40):
        ages += 1
        gone += refresh.pick(iteration, aged(ages), seeded(iteration))
        ages[gone[-1]] = 0
    assert sorted(gone[:20]) == list(range(20))
    assert gone[20:] == gone[:20]


def test_accuracy_by_hand() -> None:
    """Two of six go. Head 4 has too few updates, head 5 has judged nothing: neither is known.

    The lowest of .7, .4, .9, .6 are heads 1 and 3; the highest heads 2 and 0.
    """
    heads = stats(
        6,
        updates_N=torch.tensor([20, 30, 40, 20, 19, 50]),
        accuracy_N=torch.tensor([0.7, 0.4, 0.9, 0.6, 0.1, torch.nan]),
    )
    for replace, expected in (("lowest", [1, 3]), ("highest", [0, 2])):
        refresh = AccuracyRefreshConfig(fraction=0.34, replace=replace).build()
        assert {tuple(refresh.pick(0, heads, seeded(s))) for s in range(20)} == {tuple(expected)}
    # With fewer known heads than are due, those that are known go.
    everyone = AccuracyRefreshConfig(fraction=1.0).build()
    assert everyone.pick(0, heads, seeded(0)) == [0, 1, 2, 3]
    early = AccuracyRefreshConfig(fraction=0.34, min_updates=19).build()
    assert early.pick(0, heads, seeded(0)) == [1, 4]


def test_accuracy_leaves_equals_to_the_generator() -> None:
    """Of .5, .5, .5, .9 one goes: each of the first three in a third of 3,000 draws, std 26."""
    heads = stats(4, accuracy_N=torch.tensor([0.5, 0.5, 0.5, 0.9]))
    refresh, generator = AccuracyRefreshConfig(fraction=0.25).build(), seeded(0)
    picks = [refresh.pick(0, heads, generator) for _ in range(3000)]
    assert all(len(pick) == 1 for pick in picks)
    counts = [sum(head in pick for pick in picks) for head in range(4)]
    assert counts[3] == 0
    assert all(abs(count - 1000) < 4 * 26 for count in counts[:3])


@pytest.mark.parametrize("life", [1.0, 5.0, 25.0])
@pytest.mark.parametrize("drawn", [0.1, 0.5])
def test_lives_have_the_updates_that_were_asked_for(life: float, drawn: float) -> None:
    """Whatever share of the pool is drawn. A life's updates are geometric: of mean n, std below n.

    The first lives of all heads are complete after enough iterations, so none is cut short.
    """
    refresh, generator = RandomRefreshConfig(updates_per_life=life).build(), seeded(1)
    draws = seeded(2)
    updates, done = torch.zeros(200, dtype=torch.int64), []
    living = torch.ones(200, dtype=torch.bool)
    rounds = 0
    while living.any() or rounds < 10:
        rounds += 1
        learned_N = torch.rand(200, generator=draws) < drawn
        updates += learned_N
        for head in refresh.pick(rounds, stats(200, learned_N=learned_N), generator):
            assert learned_N[head]
            if living[head]:
                done.append(int(updates[head]))
            living[head] = False
            updates[head] = 0
    assert len(done) == 200
    assert abs(sum(done) / 200 - life) <= 4 * life / 200**0.5
    assert min(done) >= 1


def test_lives_over_many_iterations_of_a_pool() -> None:
    """The paper's pool at 6 updates a life: 3,000 iterations are about 15,000 lives; std 0.05."""
    pool = DynamicPoolConfig(
        width=16, depth=1, views=["global-cond"], timesteps=[10, 250], heads_per_slot=2
    ).build((8,) * 10, seed=0)
    refresh, generator = RandomRefreshConfig(updates_per_life=6).build(), seeded(0)
    count = len(pool.heads)
    updates, lives = torch.zeros(count, dtype=torch.int64), []
    for i in range(3000):
        learned_N = torch.zeros(count, dtype=torch.bool)
        learned_N[pool.draw(1, seeded(i)).head_ids] = True
        updates += learned_N
        picked = refresh.pick(i, stats(count, learned_N=learned_N), generator)
        lives += updates[picked].tolist()
        updates[picked] = 0
    assert len(lives) > 4000
    assert abs(sum(lives) / len(lives) - 6) < 0.3


def test_the_chance_to_be_drawn_over_the_chance_to_be_reset_is_the_updates_of_a_life() -> None:
    """nitro_vibrant: 1/16 of the heads are drawn and 1 % are reset: 6.25 updates in 100 iterations.

    With the t* of each picture or of all drawn, a head's slot is always used: 1/4.
    """
    pool = DynamicPoolConfig()
    chance = pool.draw_chance()
    assert chance == 1 / 16
    random = RandomRefreshConfig()
    assert random.reset_chance(chance) == 0.01
    assert chance / (random.reset_chance(chance) or 0) == 6.25
    assert RandomRefreshConfig(fraction=0.02, every=20).reset_chance(chance) == 0.001
    life = RandomRefreshConfig(updates_per_life=25).reset_chance(chance)
    assert life == pytest.approx(1 / 400)
    assert NeverRefreshConfig().reset_chance(chance) == 0
    for draw in ("all", "per-picture"):
        assert DynamicPoolConfig(draw=draw).draw_chance() == 1 / 4
    assert DynamicPoolConfig(draw_heads="all").draw_chance() == 1 / 4
    assert StaticPoolConfig().draw_chance() == 1 / 4
    assert StaticPoolConfig(draw="all").draw_chance() == 1


@pytest.mark.parametrize(
    "fields", [{"fraction": 0.02}, {"every": 5}, {"fraction": 0.02, "every": 5}]
)
def test_updates_per_life_stand_alone(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"updates_per_life: replaces `(fraction|every)`"):
        RandomRefreshConfig(updates_per_life=5, **fields)


def test_never() -> None:
    assert list(NeverRefreshConfig().build().pick(0, ALL, seeded(0))) == []

"""Which sample comes next: every split of an iteration is a slice of the same global order."""

from __future__ import annotations

from collections import Counter
from itertools import chain, pairwise

from distillkit.samples.order import BatchSlices, Repeats, SampleOrder


def test_every_split_of_an_iteration_has_the_same_pictures() -> None:
    whole = BatchSlices(batch=8)
    assert list(whole.positions(3, 0)) == list(range(24, 32))
    for processes, micros in (
        ([BatchSlices(batch=4, accumulate=2)], 2),
        ([BatchSlices(batch=4, rank=r, world=2) for r in range(2)], 1),
        ([BatchSlices(batch=2, accumulate=2, rank=r, world=2) for r in range(2)], 2),
    ):
        positions = [
            p for slices in processes for m in range(micros) for p in slices.positions(3, m)
        ]
        assert sorted(positions) == list(range(24, 32))
        assert all(slices.total == 8 for slices in processes)


def test_an_epoch_uses_every_sample_once_and_epochs_differ() -> None:
    order = SampleOrder(["a", "b", "c"], seed=0, count=50)
    first = [order.sample_id(p) for p in range(50)]
    second = [order.sample_id(p) for p in range(50, 100)]
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_without_a_count_samples_never_repeat_and_prompts_go_round() -> None:
    order = SampleOrder(["a", "b", "c"], seed=0)
    assert [order.sample_id(p) for p in (0, 7, 1000)] == [0, 7, 1000]
    for epoch in range(4):
        assert sorted(order.prompt(3 * epoch + i) for i in range(3)) == ["a", "b", "c"]


def test_samples_come_again_in_their_own_row_and_other_company() -> None:
    """3 uses of 4 iterations with 5 pictures each: blocks of 12 iterations, two of them here."""
    order = SampleOrder(["a", "b"], seed=0, repeats=Repeats(uses=3, window=4, rows=5))
    iterations = [[order.draw(5 * i + row) for row in range(5)] for i in range(24)]
    for first in (0, 12):
        block = iterations[first : first + 12]
        new = list(range(5 * (first // 3), 5 * (first // 3) + 20))
        assert [draw for iteration in block[:4] for draw in iteration] == new
        for turn in range(3):
            assert sorted(chain(*block[4 * turn : 4 * turn + 4])) == new
    assert all(draw % 5 == row for iteration in iterations for row, draw in enumerate(iteration))
    pairs = Counter(frozenset(iteration) for iteration in iterations)
    assert max(pairs.values()) == 1  # no batch comes twice
    beside = [len({*a} & {*b}) for a, b in pairwise(iterations)]
    assert max(beside) < 5
    assert SampleOrder([], seed=0, order_seed=1, repeats=order.repeats).draw(25) != order.draw(25)


def test_a_used_sample_keeps_its_id_and_ids_still_go_round() -> None:
    """With a count, the order of new samples is that of a run that uses each once."""
    once = SampleOrder(["a", "b"], seed=0, count=7)
    twice = SampleOrder(["a", "b"], seed=0, count=7, repeats=Repeats(uses=2, window=3, rows=2))
    new = [p for p in range(48) if p // 2 % 6 < 3]
    assert [twice.sample_id(p) for p in new] == [once.sample_id(d) for d in range(24)]
    assert all(twice.sample_id(p) == once.sample_id(twice.draw(p)) for p in range(48))

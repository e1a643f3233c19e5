"""Which sample comes next: every split of an iteration is a slice of the same global order."""

from __future__ import annotations

from distillkit.samples.order import BatchSlices, SampleOrder


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

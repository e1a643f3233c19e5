"""Which picture comes next: every split of an iteration deals the same global order."""

from __future__ import annotations

import torch

from distillkit.randomness import generator, key_to_seed, noise
from distillkit.samples.order import BatchSlices, SampleOrder


def test_every_split_of_an_iteration_deals_the_same_pictures() -> None:
    whole = BatchSlices(batch=8)
    assert list(whole.positions(3, 0)) == list(range(24, 32))
    for deals, micros in (
        ([BatchSlices(batch=4, accumulate=2)], 2),
        ([BatchSlices(batch=4, rank=r, world=2) for r in range(2)], 1),
        ([BatchSlices(batch=2, accumulate=2, rank=r, world=2) for r in range(2)], 2),
    ):
        dealt = [p for slices in deals for m in range(micros) for p in slices.positions(3, m)]
        assert sorted(dealt) == list(range(24, 32))
        assert all(slices.total == 8 for slices in deals)


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


def test_noise_of_a_picture_does_not_depend_on_its_batch() -> None:
    one = noise((4, 2, 2), 5, "x_T", [3, 4, 5])
    other = noise((4, 2, 2), 5, "x_T", [5])
    assert torch.equal(one[2], other[0])
    assert not torch.equal(one[0], one[1])


def test_keys_are_kept_apart() -> None:
    """("a", 11) and ("a1", 1) are different purposes, although their texts join alike."""
    keys = [(0, "a", 11), (0, "a1", 1), (1, "a", 11), (0, "a", "11x")]
    assert len({key_to_seed(*key) for key in keys}) == len(keys)


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.randn(3, generator=generator(0, "anything"))
    noise((2,), 0, "x", [1, 2])
    assert torch.equal(before, torch.get_rng_state())

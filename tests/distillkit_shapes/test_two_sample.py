"""A small net tells two sets apart where they differ, and where they do not it has to guess."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from distillkit_shapes.two_sample import told_apart

PAIRS = 240


def noise(seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.rand(PAIRS, 3, 16, 16, generator=source)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_sets_of_one_kind_are_told_apart_by_chance() -> None:
    """Of 120 held-out pairs, three standard deviations are 0.14."""
    assert told_apart(noise(0), noise(1), seeded()) == pytest.approx(0.5, abs=0.14)


def test_a_softer_set_is_told_apart() -> None:
    sharp, other = noise(0), noise(1)
    softer = 0.5 * sharp + 0.5 * avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    assert told_apart(softer, other, seeded()) > 0.9


def test_equal_sets_are_a_coin_toss() -> None:
    assert told_apart(noise(0), noise(0), seeded()) == 0.5


def test_it_depends_on_its_generator_alone_and_leaves_the_global_one() -> None:
    torch.manual_seed(1)
    first, state = told_apart(noise(0), noise(1), seeded()), torch.get_rng_state()
    torch.manual_seed(2)
    assert told_apart(noise(0), noise(1), seeded()) == first
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_needs_a_pair_to_learn_and_one_to_test() -> None:
    with pytest.raises(ValueError, match="at least two pairs"):
        told_apart(noise(0)[:1], noise(1)[:1], seeded())
    assert 0 <= told_apart(noise(0)[:2], noise(1)[:2], seeded()) <= 1

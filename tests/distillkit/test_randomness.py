"""Draws are functions of their key: no batch, no neighbour and no global state changes them."""

from __future__ import annotations

import torch

from distillkit.randomness import generator, key_to_seed, noise


def test_noise_of_a_picture_does_not_depend_on_its_batch() -> None:
    one = noise((4, 2, 2), 5, "x_T", [3, 4, 5])
    other = noise((4, 2, 2), 5, "x_T", [5])
    assert torch.equal(one[2], other[0])
    assert not torch.equal(one[0], one[1])


def test_keys_are_kept_apart() -> None:
    """("a", 11) and ("a1", 1) are different purposes, although their texts join alike."""
    keys = [(0, "a", 11), (0, "a1", 1), (1, "a", 11), (0, "a", "11x")]
    assert len({key_to_seed(*key) for key in keys}) == len(keys)


def test_a_keys_seed_is_the_one_that_published_runs_were_made_with() -> None:
    """The first 8 bytes of the SHA-256 of its parts with 0x1f between, less the last bit."""
    assert key_to_seed(0, "panel", 1200) == 0x19D3286A134EE171 >> 1


def test_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    torch.randn(3, generator=generator(0, "anything"))
    noise((2,), 0, "x", [1, 2])
    assert torch.equal(before, torch.get_rng_state())

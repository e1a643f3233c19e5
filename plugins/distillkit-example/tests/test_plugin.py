"""The policy by hand, found by distillkit, and held to the contract of its socket."""

import pytest
import torch
from pydantic import ValidationError

from distillkit import testing
from distillkit.registry.entry_points import installed
from distillkit_example.refresh import RoundRobinRefreshConfig


def test_every_second_iteration_resets_the_next_of_three_heads() -> None:
    """Iterations 1, 3, 5, 7 end a pair of iterations; heads 0, 1, 2 take turns, then 0 again."""
    policy = RoundRobinRefreshConfig(every=2).build()
    picks = [policy.pick(i, torch.zeros(3), torch.Generator()) for i in range(8)]
    assert picks == [[], [0], [], [1], [], [2], [], [0]]


def test_a_bound_is_kept() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        RoundRobinRefreshConfig(every=0)


def test_distillkit_finds_it() -> None:
    """By the entry point in pyproject.toml, once the package is installed."""
    assert installed().registry.get("refresh", "round-robin").config is RoundRobinRefreshConfig


def test_it_keeps_the_contract() -> None:
    """Three checks that every plugin can run on its own parts."""
    testing.check_plugin("distillkit_example.plugin")
    testing.check(RoundRobinRefreshConfig(every=2))
    testing.check_run(RoundRobinRefreshConfig(every=2))

"""The policy by hand, and found by distillkit."""

import pytest
import torch
from pydantic import ValidationError

from distillkit import testing
from distillkit.registry.entry_points import installed
from distillkit_example.plugin import RoundRobinRefresh


def test_every_second_iteration_replaces_the_next_of_three_heads() -> None:
    """Iterations 1, 3, 5, 7 end a pair of iterations; heads 0, 1, 2 take turns, then 0 again."""
    policy = RoundRobinRefresh(every=2).build()
    picks = [policy.pick(i, torch.zeros(3), torch.Generator()) for i in range(8)]
    assert picks == [[], [0], [], [1], [], [2], [], [0]]


def test_a_bound_is_kept() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        RoundRobinRefresh(every=0)


def test_distillkit_finds_it() -> None:
    assert installed().registry.get("refresh", "round-robin").config is RoundRobinRefresh


def test_it_keeps_the_contract() -> None:
    testing.check_plugin("distillkit_example.plugin")
    testing.check(RoundRobinRefresh(every=2))
    testing.check_run(RoundRobinRefresh(every=2))

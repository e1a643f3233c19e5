"""DMD2's loss keeps the contract that every loss is held to."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from distillkit import testing
from distillkit_dmd2.loss import DistributionMatchingConfig


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_dmd2.plugin")


def test_the_loss() -> None:
    testing.check(DistributionMatchingConfig(guidance=2.0))


def test_an_empty_range_of_timesteps_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"`low` \(500\) should be below `high` \(500\)"):
        DistributionMatchingConfig(low=500, high=500)

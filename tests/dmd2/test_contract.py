"""DMD2's loss keeps the contract that every loss is held to."""

from __future__ import annotations

from distillkit import testing
from distillkit_dmd2.plugin import DistributionMatchingConfig


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_dmd2.plugin")


def test_the_loss() -> None:
    testing.check(DistributionMatchingConfig(guidance=2.0))

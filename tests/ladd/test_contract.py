"""LADD's pool keeps the contract that every pool is held to."""

from __future__ import annotations

from distillkit import testing
from distillkit_ladd.plugin import ContinuousPool


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_ladd.plugin")


def test_the_pool() -> None:
    testing.check(ContinuousPool(width=16))

"""LADD's pool keeps the contract that every pool is held to."""

from __future__ import annotations

from distillkit import testing
from distillkit_ladd.pool import ContinuousPoolConfig


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_ladd.plugin")


def test_the_pool() -> None:
    testing.check(ContinuousPoolConfig(width=16))

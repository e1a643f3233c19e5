"""The shapes world's light parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

from distillkit import testing
from distillkit_shapes.configs import ShapesPrompts


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_shapes.plugin")


def test_prompts() -> None:
    testing.check(ShapesPrompts(count=300, seed=5))

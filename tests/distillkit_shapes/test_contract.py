"""The shapes world's parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

import pytest

from distillkit import testing
from distillkit_shapes.metrics import ShapesMetricsConfig
from distillkit_shapes.prompts import ShapesPromptsConfig
from distillkit_shapes.teacher import ShapesTeacherConfig


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_shapes.plugin")


def test_prompts() -> None:
    testing.check(ShapesPromptsConfig(count=300, seed=5))


def test_metrics() -> None:
    testing.check(ShapesMetricsConfig())


@pytest.mark.slow
def test_teacher() -> None:
    testing.check(ShapesTeacherConfig(steps=2))

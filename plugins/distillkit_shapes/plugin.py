"""The names that the shapes world adds to recipes. Imports no torch: the parts do, when built."""

from __future__ import annotations

from distillkit.configs import MetricsConfig, PromptsConfig, TeacherConfig
from distillkit.hookspecs import hookimpl
from distillkit_shapes.metrics import ShapesMetricsConfig
from distillkit_shapes.prompts import ShapesPromptsConfig
from distillkit_shapes.teacher import ShapesTeacherConfig


@hookimpl
def distillkit_register_teachers() -> list[type[TeacherConfig]]:
    return [ShapesTeacherConfig]


@hookimpl
def distillkit_register_prompts() -> list[type[PromptsConfig]]:
    return [ShapesPromptsConfig]


@hookimpl
def distillkit_register_metrics() -> list[type[MetricsConfig]]:
    return [ShapesMetricsConfig]

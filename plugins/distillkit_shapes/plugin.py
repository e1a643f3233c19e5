"""What the shapes world brings to distillkit. Importing this needs no torch."""

from __future__ import annotations

from distillkit.configs import MetricsConfig, PromptsConfig, TeacherConfig
from distillkit.hookspecs import hookimpl
from distillkit_shapes.configs import ShapesMetrics, ShapesPrompts, ShapesTeacher


@hookimpl
def distillkit_register_teachers() -> list[type[TeacherConfig]]:
    return [ShapesTeacher]


@hookimpl
def distillkit_register_prompts() -> list[type[PromptsConfig]]:
    return [ShapesPrompts]


@hookimpl
def distillkit_register_metrics() -> list[type[MetricsConfig]]:
    return [ShapesMetrics]

"""The hooks of this plugin: one teacher, student, backbone and layout, and four exporters."""

from __future__ import annotations

from distillkit.configs import (
    BackboneConfig,
    ExporterConfig,
    LayoutConfig,
    StudentConfig,
    TeacherConfig,
)
from distillkit.hookspecs import hookimpl
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig, UNetStudentConfig
from distillkit_diffusers.export.configs import (
    DiffusersFolderConfig,
    LoRAFileConfig,
    SDXLLayoutConfig,
    SingleFileConfig,
    UNetFileConfig,
)


@hookimpl
def distillkit_register_teachers() -> list[type[TeacherConfig]]:
    return [SDXLTeacherConfig]


@hookimpl
def distillkit_register_students() -> list[type[StudentConfig]]:
    return [UNetStudentConfig]


@hookimpl
def distillkit_register_backbones() -> list[type[BackboneConfig]]:
    return [UNetEncoderConfig]


@hookimpl
def distillkit_register_exporters() -> list[type[ExporterConfig]]:
    return [DiffusersFolderConfig, UNetFileConfig, SingleFileConfig, LoRAFileConfig]


@hookimpl
def distillkit_register_layouts() -> list[type[LayoutConfig]]:
    return [SDXLLayoutConfig]

"""What this plugin brings to distillkit."""

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
from distillkit_diffusers.export_configs import (
    DiffusersFolder,
    LoRAFile,
    SDXLLayout,
    SingleFile,
    UNetFile,
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
    return [DiffusersFolder, UNetFile, SingleFile, LoRAFile]


@hookimpl
def distillkit_register_layouts() -> list[type[LayoutConfig]]:
    return [SDXLLayout]

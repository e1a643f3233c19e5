"""What this plugin brings to distillkit."""

from __future__ import annotations

from distillkit.configs import BackboneConfig, StudentConfig, TeacherConfig
from distillkit.hookspecs import hookimpl
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig, UNetStudentConfig


@hookimpl
def distillkit_register_teachers() -> list[type[TeacherConfig]]:
    return [SDXLTeacherConfig]


@hookimpl
def distillkit_register_students() -> list[type[StudentConfig]]:
    return [UNetStudentConfig]


@hookimpl
def distillkit_register_backbones() -> list[type[BackboneConfig]]:
    return [UNetEncoderConfig]

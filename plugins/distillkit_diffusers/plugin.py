"""The hooks of this plugin: teachers, students and backbones of each family, files of SDXL's."""

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
    Flux2LayoutConfig,
    LoRAFileConfig,
    SD3LayoutConfig,
    SDXLLayoutConfig,
    SingleFileConfig,
    TransformerFileConfig,
    UNetFileConfig,
    ZImageLayoutConfig,
)
from distillkit_diffusers.flow.dit_config import DiTConfig
from distillkit_diffusers.flux2.configs import Flux2StudentConfig, Flux2TeacherConfig
from distillkit_diffusers.sd3.configs import SD3StudentConfig, SD3TeacherConfig
from distillkit_diffusers.z_image.configs import ZImageStudentConfig, ZImageTeacherConfig


@hookimpl
def distillkit_register_teachers() -> list[type[TeacherConfig]]:
    return [SDXLTeacherConfig, SD3TeacherConfig, ZImageTeacherConfig, Flux2TeacherConfig]


@hookimpl
def distillkit_register_students() -> list[type[StudentConfig]]:
    return [UNetStudentConfig, SD3StudentConfig, ZImageStudentConfig, Flux2StudentConfig]


@hookimpl
def distillkit_register_backbones() -> list[type[BackboneConfig]]:
    return [UNetEncoderConfig, DiTConfig]


@hookimpl
def distillkit_register_exporters() -> list[type[ExporterConfig]]:
    return [
        *(DiffusersFolderConfig, UNetFileConfig, SingleFileConfig),
        *(TransformerFileConfig, LoRAFileConfig),
    ]


@hookimpl
def distillkit_register_layouts() -> list[type[LayoutConfig]]:
    return [SDXLLayoutConfig, SD3LayoutConfig, ZImageLayoutConfig, Flux2LayoutConfig]

"""The SDXL family's parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distillkit import testing
from distillkit_diffusers import plugin
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig, UNetStudentConfig


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_diffusers.plugin")


def test_teacher(tiny_sdxl: Path) -> None:
    testing.check(SDXLTeacherConfig(model=str(tiny_sdxl), dtype="float32", steps=2))


def test_stochastic_teacher(tiny_sdxl: Path) -> None:
    lcm: Any = {"solver": "lcm", "timesteps": (999, 499)}
    testing.check(SDXLTeacherConfig(model=str(tiny_sdxl), dtype="float32", **lcm))


def test_student(teacher: Any) -> None:
    testing.check(UNetStudentConfig(), teacher=teacher)


def test_backbone(teacher: Any) -> None:
    testing.check(UNetEncoderConfig(), teacher=teacher)


def test_exporters_and_layouts(teacher: Any) -> None:
    for register in (plugin.distillkit_register_exporters, plugin.distillkit_register_layouts):
        for config in register():
            testing.check(config(), teacher=teacher)


def test_a_run(tiny_sdxl: Path) -> None:
    of_its_own = SDXLTeacherConfig(model=str(tiny_sdxl), dtype="float32", steps=2)
    testing.check_run(of_its_own, UNetStudentConfig(timestep_shift=500), UNetEncoderConfig())

"""The family's parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit import testing
from distillkit.errors import UserError
from distillkit_diffusers.export.configs import DiffusersFolderConfig, LoRAFileConfig
from distillkit_diffusers.sd3.configs import DiTConfig, SD3StudentConfig, SD3TeacherConfig
from tests.distillkit_diffusers.tiny import perturbed


def test_teacher(teacher_config: SD3TeacherConfig) -> None:
    testing.check(teacher_config.model_copy(update={"guidance": 2.0}))


@pytest.mark.parametrize("train", ["full", "lora"])
def test_student(teacher: Any, train: Any) -> None:
    testing.check(SD3StudentConfig(train=train, rank=2), teacher=teacher)


def test_backbone(teacher: Any) -> None:
    testing.check(DiTConfig(blocks=(0, 2)), teacher=teacher)


def test_exporters(teacher: Any) -> None:
    student = perturbed(SD3StudentConfig(train="lora", rank=2).build(teacher))
    for config in (DiffusersFolderConfig(), LoRAFileConfig(rank=2)):
        testing.check(config, teacher=teacher, student=student)


def test_a_run(teacher_config: SD3TeacherConfig) -> None:
    testing.check_run(teacher_config, SD3StudentConfig(gradient_steps=2), DiTConfig())


@pytest.mark.parametrize("content", ["", '{"_class_name": "StableDiffusionXLPipeline"}'])
def test_a_folder_of_another_family_is_a_sentence(tmp_path: Path, content: str) -> None:
    if content:
        (tmp_path / "model_index.json").write_text(content)
    what = "StableDiffusionXLPipeline" if content else "no diffusers pipeline folder"
    with pytest.raises(UserError, match=f"{tmp_path} is {what}, and a StableDiffusion3Pipeline is"):
        SD3TeacherConfig(model=str(tmp_path)).build()


def test_a_single_file_has_no_text_encoders(tmp_path: Path) -> None:
    file = tmp_path / "sd3.safetensors"
    file.write_bytes(b"")
    with pytest.raises(UserError, match="is one file, and has not all text encoders of the fam"):
        SD3TeacherConfig(model=str(file)).build()

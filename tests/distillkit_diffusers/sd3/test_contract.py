"""The family's parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit import testing
from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit_diffusers.export.configs import DiffusersFolderConfig, LoRAFileConfig
from distillkit_diffusers.flow.dit_config import DiTConfig
from distillkit_diffusers.sd3.configs import SD3StudentConfig, SD3TeacherConfig
from tests.distillkit_diffusers.tiny import perturbed

ROOT = Path(__file__).parents[3]


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


@pytest.mark.usefixtures("no_hub")
def test_what_is_missing_is_told_with_the_command_that_fetches_it() -> None:
    with pytest.raises(UserError) as caught:
        SD3TeacherConfig(preset="sd3.5-medium").build()  # type: ignore[call-arg]
    said = str(caught.value)
    assert (
        "hf download stabilityai/stable-diffusion-3.5-medium --include 'model_index.json'" in said
    )
    assert "'text_encoder_3/*'" in said
    with pytest.raises(ValueError, match=r"did you mean 'sd3\.5-medium'"):
        SD3TeacherConfig(preset="sd3.5-mdium")


@pytest.mark.usefixtures("no_hub")
def test_the_recipe_of_sd35_says_what_has_no_effect_and_what_is_not_there() -> None:
    recipe = load_recipe(ROOT / "recipes" / "nitro_sd35.yaml").recipe
    assert recipe.backbone is not None
    assert recipe.backbone.level_channels(recipe.teacher) == (1536,) * 5
    assert (recipe.teacher.model_dump()["steps"], recipe.teacher.model_dump()["guidance"]) == (
        40,
        4.5,
    )
    changed = {"blocks": (0, 24)}
    remarks = list(recipe.backbone.model_copy(update=changed).preflight(recipe))
    assert [r.message for r in remarks] == ["there is no block 24; the network's are 0 to 23"]

"""The families' parts keep the contracts that every plugin's parts are held to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from distillkit import testing
from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit_diffusers.export.configs import DiffusersFolderConfig, LoRAFileConfig
from distillkit_diffusers.flow.configs import FlowTeacherConfig
from distillkit_diffusers.flow.dit_config import DiTConfig
from distillkit_diffusers.sd3.configs import SD3StudentConfig
from tests.distillkit_diffusers.flow.tiny import Tiny
from tests.distillkit_diffusers.tiny import perturbed

RECIPES = Path(__file__).parents[3] / "recipes"


def test_teacher(teacher_config: FlowTeacherConfig) -> None:
    testing.check(teacher_config.model_copy(update={"guidance": 2.0}))


@pytest.mark.parametrize("train", ["full", "lora"])
def test_student(tiny: Tiny, teacher: Any, train: Any) -> None:
    config = tiny.student.model_validate({"train": train, "rank": 2})
    testing.check(config, teacher=teacher)


def test_backbone(teacher: Any) -> None:
    testing.check(DiTConfig(blocks=(0, 2)), teacher=teacher)


def test_exporters(tiny: Tiny, teacher: Any) -> None:
    student = tiny.student.model_validate({"train": "lora", "rank": 2}).build(teacher)
    for config in (DiffusersFolderConfig(), LoRAFileConfig(rank=2)):
        testing.check(config, teacher=teacher, student=perturbed(student))


def test_a_run(tiny: Tiny, teacher_config: FlowTeacherConfig) -> None:
    """Trains, resumes, publishes, and is planned."""
    testing.check_run(teacher_config, tiny.student(), DiTConfig())


def test_a_folder_of_another_family_is_a_sentence(
    tiny: Tiny, teacher_config: FlowTeacherConfig, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionXLPipeline"}')
    said = f"{tmp_path} is StableDiffusionXLPipeline, and a {tiny.teacher.family.pipeline} is need"
    with pytest.raises(UserError, match=f"^teacher.model: {said}"):
        teacher_config.model_copy(update={"model": str(tmp_path)}).build()


def test_a_missing_text_encoder_is_a_sentence(
    folder: Path, teacher_config: FlowTeacherConfig, tmp_path: Path
) -> None:
    part = shutil.copytree(folder, tmp_path / "part", symlinks=True)
    shutil.rmtree(part / "text_encoder")
    with pytest.raises(UserError, match=r"has no text_encoder, which its model_index\.json names"):
        teacher_config.model_copy(update={"model": str(part)}).build()


def test_a_student_of_another_family_is_a_sentence(kind: str, teacher: Any) -> None:
    said = "^student sd3 needs a teacher of type sd3, and this recipe's teacher is a "
    with pytest.raises(UserError, match=said):
        SD3StudentConfig().build(teacher)


@pytest.mark.usefixtures("no_hub")
def test_what_is_missing_is_told_with_the_command_that_fetches_it(tiny: Tiny) -> None:
    """For every preset; a preset that is not there is guessed at."""
    for name, fields in tiny.teacher.presets.items():
        with pytest.raises(UserError) as caught:
            tiny.teacher.model_validate({"preset": name}).build()
        said = f"hf download {fields['model']} --include 'model_index.json' 'scheduler/*' 'transfor"
        assert said in str(caught.value)
        assert "'text_encoder/*' 'tokenizer/*' --local-dir models/" in str(caught.value)
        with pytest.raises(ValueError, match=f"did you mean '{name}'"):
            tiny.teacher.model_validate({"preset": name + "x"})


@pytest.mark.parametrize("name", ["nitro_z_image", "nitro_klein"])
def test_recipes(name: str) -> None:
    """Critics on five blocks of the published model's width, and nothing without effect."""
    recipe = load_recipe(RECIPES / f"{name}.yaml").recipe
    assert recipe.backbone is not None
    width = 3840 if name == "nitro_z_image" else 3072
    assert recipe.backbone.level_channels(recipe.teacher) == (width,) * 5
    parts = (recipe.teacher, recipe.student, recipe.backbone)
    assert not [r for part in parts for r in part.preflight(recipe)]


@pytest.mark.parametrize("name", ["nitro_z_image", "nitro_klein"])
def test_heads_that_would_see_a_pooled_prompt_are_refused(name: str) -> None:
    """By `check`, before anything is loaded: these families have none."""
    recipe = load_recipe(RECIPES / f"{name}.yaml", ["pool.prompt_projection=true"]).recipe
    assert recipe.pool is not None
    errors = [r for r in recipe.pool.preflight(recipe) if r.is_error]
    said = "teacher's prompts have no pooled embedding that heads could see; leave it out"
    assert [r.field for r in errors] == ["prompt_projection"]
    assert errors[0].message == f"a {recipe.teacher.type} {said}"

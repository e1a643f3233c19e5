"""The paper's two models as recipes: their numbers, and the error where there is no hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.errors import UserError
from distillkit.recipe.load import RecipeError, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.mark.parametrize(
    ("name", "shift", "solver", "lora", "unet"),
    [
        ("vibrant", 500, "ddim", "Hyper-SDXL-8steps-lora.safetensors", None),
        ("realism", 250, "lcm", None, "dmd2_sdxl_4step_unet_fp16.bin"),
    ],
)
@pytest.mark.usefixtures("no_hub")
def test_recipe(name: str, shift: int, solver: str, lora: str | None, unet: str | None) -> None:
    recipe = load_recipe(RECIPES / f"nitro_{name}.yaml").recipe
    teacher, student, pool = (
        part.model_dump() for part in (recipe.teacher, recipe.student, recipe.pool) if part
    )
    assert student["timestep_shift"] == shift
    assert (teacher["solver"], teacher["guidance"]) == (solver, 0)
    assert recipe.run.batch * recipe.run.accumulate == 100
    slots = len(pool["views"]) * len(pool["timesteps"]) * 10
    assert slots * pool["heads_per_slot"] == 480
    with pytest.raises(UserError) as error:
        recipe.teacher.build()
    assert (lora or unet or "") in str(error.value)
    assert "hf download stabilityai/stable-diffusion-xl-base-1.0 " in str(error.value)


def test_names_are_registered_without_torch() -> None:
    """The plugin itself is light: listing plugins does not import torch."""
    import subprocess
    import sys

    code = (
        "import sys; from distillkit_diffusers import plugin; "
        "print(plugin.distillkit_register_teachers()[0].name(), "
        "plugin.distillkit_register_students()[0].name(), "
        "plugin.distillkit_register_backbones()[0].name(), "
        "{'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "sdxl unet unet-encoder set()"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("student.train=lora", "needs a student that trains whole"),
        ("optim.student.bits=8", "which 8 bits do not allow"),
    ],
)
def test_what_can_not_be_sharded_is_refused(change: str, reason: str) -> None:
    changes = ["run.parallel=fsdp2", change]
    with pytest.raises(RecipeError, match=rf"run\.parallel.*{reason}"):
        load_recipe(RECIPES / "nitro_vibrant.yaml", changes)
    assert load_recipe(RECIPES / "nitro_vibrant.yaml", changes[:1]).recipe.run.parallel == "fsdp2"

"""The shapes teacher's fine-tune, and the recipe that distils it, on the smallest settings."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from distillkit.recipe.load import load_recipe
from distillkit_shapes.teacher import TEACHER
from tests.distillkit.launch import ROOT

STYLE = runpy.run_path(str(ROOT / "benchmarks" / "style.py"))
RECIPE = ROOT / "recipes" / "shapes_style.yaml"
UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_sticker_is_the_object_and_three_pixels_of_white_around_it() -> None:
    """A red square of 10 x 10 on grey: the rim is 16 x 16 without it."""
    x_N3HW = torch.full((1, 3, 64, 64), 0.5)
    red_311 = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    x_N3HW[0, :, 20:30, 40:50] = red_311
    found_3HW = STYLE["stickers"](x_N3HW)[0]
    white_HW = (found_3HW == torch.tensor(0.97)).all(dim=0)
    assert white_HW.sum() == 16 * 16 - 10 * 10
    assert white_HW[17:33, 37:53].sum() == white_HW.sum()
    assert torch.equal(found_3HW[:, ~white_HW], x_N3HW[0][:, ~white_HW])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("style") / "teacher"
    words = ["--scenes", "4", "--steps", "2", "--batch", "2", "--out", str(out)]
    STYLE["main"](words)
    return out


def test_the_fine_tune_is_a_teacher_whose_unet_alone_has_moved(folder: Path) -> None:
    for file in TEACHER.rglob("*.safetensors"):
        name = file.relative_to(TEACHER).as_posix()
        own, there = load_file(folder / name), load_file(file)
        assert own.keys() == there.keys()
        equal = all(torch.equal(own[key], there[key]) for key in own)
        assert equal is (name != UNET), name
    with Image.open(folder.with_suffix(".png")) as image:
        assert image.size == (4 * 66 * 2, 3 * 66 * 2)


def test_the_recipes_difference_is_added_to_the_fine_tune(folder: Path) -> None:
    """W = W_fine + (W_one_step - W_teacher)."""
    recipe = load_recipe(RECIPE, [f"teacher.model={folder}"]).recipe
    student: Any = recipe.student.build(recipe.teacher.build())
    one_step = load_file(TEACHER.parent / "one_step" / Path(UNET).name)
    fine, base = load_file(folder / UNET), load_file(TEACHER / UNET)
    for name, weight in student.module.named_parameters():
        wanted = fine[name].float() + one_step[name].float() - base[name].float()
        torch.testing.assert_close(weight.detach(), wanted, rtol=0, atol=1e-6)

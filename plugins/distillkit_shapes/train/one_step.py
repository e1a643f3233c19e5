"""One-step weights of the shapes teacher, which demo and study start from."""

from __future__ import annotations

import shutil
from pathlib import Path

from distillkit import api
from distillkit.atomic import appearing

ONE_STEP = Path(__file__).parents[1] / "one_step"
"""The shipped weights: a UNet folder, in float16."""


def train_one_step(work: Path, out: Path = ONE_STEP) -> None:
    """Run the recipe `shapes_one_step` in `work`, or resume it there; copy its UNet to `out`."""
    run = work / "one_step"
    recipe = api.load_recipe("shapes_one_step")
    folder = api.train(recipe, run, resume=(run / "recipe.yaml").exists())
    with appearing(out) as temporary:
        shutil.copytree(folder.student / "unet", temporary, dirs_exist_ok=True)

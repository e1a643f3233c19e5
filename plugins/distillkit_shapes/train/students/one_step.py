"""One-step weights of the shapes teacher, which the recipes of this world start from."""

from __future__ import annotations

import shutil
from pathlib import Path

from distillkit import api
from distillkit.atomic import appearing

PACKAGE = Path(__file__).parents[2]
CYCLES = (2000, 2000, 4000)
"""Updates in each cycle of the learning rate. Each begins from the last one's published weights."""
SHIPPED = {0: "one_step", 2: "one_step_plateau"}
"""Cycle -> the package folder that its weights are shipped as: a UNet folder, in float16."""


def train_one_step(work: Path, package: Path = PACKAGE) -> None:
    """Run the recipe `shapes_one_step` in `work` for each cycle, or resume there; copy its UNets.

    After a cycle the same recipe begins again, its rate with it (Loshchilov and Hutter, SGDR,
    section 3.1): what a rate has reached when it has fallen, a high one leaves again and passes.
    """
    start = "teacher"
    for cycle, iterations in enumerate(CYCLES):
        run = work / f"one_step_{cycle}"
        given = {
            "student.start": start,
            "refinement.iterations": iterations,
            "run.seed": cycle,
            "run.threads": 1,
        }
        recipe = api.load_recipe("shapes_one_step", [f"{k}={v}" for k, v in given.items()])
        unet = api.train(recipe, run, resume=(run / "recipe.yaml").exists()).student / "unet"
        if cycle in SHIPPED:
            with appearing(package / SHIPPED[cycle]) as temporary:
                shutil.copytree(unet, temporary, dirs_exist_ok=True)
        start = str(unet)

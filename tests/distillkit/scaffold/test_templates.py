"""What is in a new package: a part a socket, a recipe from an installed one, types that hold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillkit.configs import SOCKETS
from distillkit.errors import UserError
from distillkit.recipe.load import find_recipe
from distillkit.registry.entry_points import Installed
from distillkit.scaffold.new_plugin import new_plugin
from distillkit.scaffold.recipe import replace_fields

ALL = [base.socket for base in SOCKETS]
INSIDE = (
    *("_decomp", "_dynamo", "_export", "_functorch", "_higher_order_ops", "_inductor", "_prims"),
    *("_refs", "_subclasses", "ao", "compiler", "distributed", "export", "fx", "jit", "onnx"),
    *("profiler", "quantization", "testing", "utils"),
)
"""What torch's own code imports: half of the time that mypy takes."""
IN_RECIPES = [socket for socket in ALL if socket not in ("exporter", "layout")]

SKIPPED = f"""
[[tool.mypy.overrides]]
module = {[f"torch.{name}.*" for name in INSIDE]}
follow_imports = "skip"
"""


def source_of(folder: Path) -> Path:
    (source,) = (folder / "src").iterdir()
    return source


def recipe_of(folder: Path) -> str:
    (recipe,) = (source_of(folder) / "recipes").iterdir()
    return recipe.read_text()


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """In the package's folder, with its source on the path."""
    env = {**os.environ, "PYTHONPATH": "src"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True
    )


def test_several_sockets_share_a_package(tmp_path: Path) -> None:
    folder = new_plugin("mine", ["loss", "pool", "loss"], "starter", tmp_path, Installed())
    modules = {path.name for path in source_of(folder).glob("*.py")}
    assert modules == {"__init__.py", "plugin.py", "pool.py", "loss.py"}
    hooks = (source_of(folder) / "plugin.py").read_text()
    assert hooks.count("@hookimpl") == 3
    assert "def distillkit_register_pools() -> list[type[configs.PoolConfig]]:" in hooks
    assert "    return [MineLossConfig]\n" in hooks
    tests = (folder / "tests" / "test_plugin.py").read_text()
    assert "        MinePoolConfig(),\n        MineLossConfig(),\n" in tests
    recipe = yaml.safe_load(recipe_of(folder))
    assert recipe["pool"] == {"type": "mine", "copies": 2}
    loss = {"type": "mine", "weight": 1.0, "ramp": 0, "steps": [], "target": 1.0}
    assert recipe["losses"] == [loss]


def test_the_other_fields_are_those_of_the_recipe(tmp_path: Path) -> None:
    """And what every student has, here the timestep shift, keeps its value."""
    folder = new_plugin("mine", ["student"], "starter", tmp_path, Installed())
    ours, theirs = (yaml.safe_load(text) for text in (recipe_of(folder), starter()))
    student = ours.pop("student")
    assert (student["type"], student["timestep_shift"]) == ("mine", 500)
    assert student["file"] == "student.safetensors"
    theirs.pop("student")
    assert ours == theirs


def test_a_recipe_of_ones_own_can_be_started_from(tmp_path: Path) -> None:
    """Its header goes, the comments of the other fields stay."""
    recipe = tmp_path / "base.yaml"
    text = starter().replace(
        "refresh: {type: random}\n", "# Section 3.3.\nrefresh:\n  type: never\n"
    )
    recipe.write_text(text.replace("metrics:", "# What judges it.\nmetrics:"))
    folder = new_plugin("mine", ["metrics"], str(recipe), tmp_path, Installed())
    made = recipe_of(folder)
    assert made.startswith("# mine: recipe `base` with the plugin's own metrics.\n")
    assert "# Section 3.3.\nrefresh:\n  type: never\n" in made
    assert "# What judges it.\nmetrics: {type: mine, num_images: 200, " in made
    assert "Starter" not in made
    with pytest.raises(UserError, match="no recipe of that name; did you mean 'starter'"):
        new_plugin("other", ["pool"], "startr", tmp_path, Installed())
    assert not (tmp_path / "distillkit-other").exists()


def test_parts_that_a_new_teacher_may_not_fit_are_named(tmp_path: Path) -> None:
    alone = new_plugin("mine", ["teacher"], "starter", tmp_path, Installed())
    assert "# Built from the teacher: student, backbone, losses." in recipe_of(alone)
    family = new_plugin("ours", IN_RECIPES, "starter", tmp_path, Installed())
    assert "Built from the teacher" not in recipe_of(family)
    tests = (family / "tests" / "test_plugin.py").read_text()
    assert "testing.check(OursBackboneConfig(), teacher=OursTeacherConfig().build())" in tests


def test_fields_are_replaced_with_their_lines() -> None:
    """Blocks and lists too; comments below a field are the next one's; a new field comes last."""
    text = "# Head.\n\na: 1\nb:\n  - x   # of x\n  - y\n\n# Of c.\nc: {d: 1}  # of d\n"
    assert replace_fields(text, {"b": "b: 2"}) == "a: 1\nb: 2\n\n# Of c.\nc: {d: 1}  # of d"
    assert replace_fields(text, {"c": "c: 3", "e": "e: 4"}) == (
        "a: 1\nb:\n  - x   # of x\n  - y\n\n# Of c.\nc: 3\ne: 4"
    )


@pytest.mark.slow
@pytest.mark.parametrize("sockets", [ALL, ["exporter"]], ids=["all", "exporter"])
def test_a_package_passes_mypy(
    sockets: list[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Strictly, with torch's own types: of its tensors and modules, not of what lies inside. What
    mypy knows of torch is kept for the next package."""
    folder = new_plugin(f"new-{len(sockets)}", sockets, "starter", tmp_path, Installed())
    with (folder / "pyproject.toml").open("a") as file:
        file.write(SKIPPED)
    cache = str(tmp_path_factory.getbasetemp() / "mypy")
    types = run(folder, "mypy", "--strict", "--cache-dir", cache, "src", "tests")
    assert types.returncode == 0, types.stdout + types.stderr
    assert "no issues found" in types.stdout


def starter() -> str:
    return find_recipe("starter").read_text()

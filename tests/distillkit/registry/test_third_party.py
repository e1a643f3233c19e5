"""A plugin that somebody publishes: built as a wheel, installed beside distillkit, used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "plugins" / "distillkit-example"


def sh(*command: str | Path) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith("DISTILLKIT_")}
    return subprocess.run([*map(str, command)], capture_output=True, text=True, env=env)


def wheel_of(project: Path, folder: Path) -> Path:
    source = shutil.copytree(project, folder / "source")  # a build leaves nothing in the checkout
    built = sh(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation"),
        *("--outdir", folder / "dist", source),
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def environment_with(folder: Path, *wheels: Path) -> Path:
    """Python of an environment that sees this one's packages, with the wheels in it."""
    venv.create(folder, symlinks=True)
    site = sysconfig.get_path("purelib", vars={"base": str(folder)})
    # `addsitedir`, so that the .pth file of an editable distillkit counts too.
    ours = sysconfig.get_path("purelib")
    Path(site, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    installed = sh(*pip, "--target", site, *wheels)
    assert installed.returncode == 0, installed.stderr
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that `plugins new` has just made."""
    folder = tmp_path_factory.mktemp("new")
    made = sh(
        *(sys.executable, "-m", "distillkit", "plugins", "new", "my-refresh"),
        *("--socket", "refresh", "--out", folder),
    )
    assert made.returncode == 0, made.stderr
    return folder / "distillkit-my-refresh"


@pytest.fixture(scope="module")
def python(new: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the example and the new package."""
    folder = tmp_path_factory.mktemp("third_party")
    wheels = [wheel_of(project, folder / project.name) for project in (EXAMPLE, new)]
    return environment_with(folder / "env", *wheels)


RECIPE = """\
prompts: {type: list, prompts: [a cat]}
teacher: {type: sdxl}
student: {type: unet}
backbone: {type: unet-encoder}
pool: {type: static}
losses: [{type: hinge}]
refinement: {type: fixed, iterations: 1}
refresh: {type: round-robin, every: 5}
optim: {student: {lr: 1e-4}, critic: {lr: 1e-4}}
"""


@pytest.mark.slow
def test_it_is_listed_with_its_distribution(python: Path) -> None:
    done = sh(python, "-m", "distillkit", "plugins", "list")
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "round-robin" in line)
    assert line.split() == [
        *("refresh", "round-robin", "Replace", "one", "head", "after", "the", "other."),
        *("example", "0.1.0"),
    ]
    assert "broken" not in done.stdout.partition("example")[2]


@pytest.mark.slow
def test_a_recipe_can_name_its_part(python: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    here = sh(sys.executable, "-m", "distillkit", "check", recipe)
    assert here.returncode == 2
    assert f"{recipe}:8:11: refresh.type: no refresh 'round-robin'; installed: " in here.stderr
    there = sh(python, "-m", "distillkit", "check", recipe)
    assert there.returncode == 0, there.stderr
    assert "round-robin  every=5" in there.stdout
    wrong = sh(python, "-m", "distillkit", "check", recipe, "--set", "refresh.every=0")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("--set refresh.every=0: refresh.every: Input should be greater")


@pytest.mark.slow
def test_their_own_tests_pass(python: Path, new: Path) -> None:
    """Four of the example, three of a new plugin; all in one process, which is slow to start."""
    done = sh(
        *(python, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib"),
        *(EXAMPLE / "tests", new / "tests"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


@pytest.mark.slow
def test_a_new_plugins_recipe_is_valid_and_it_is_shown(python: Path) -> None:
    check = sh(python, "-m", "distillkit", "check", "my-refresh")
    assert check.returncode == 0, check.stderr
    assert "recipes/my-refresh.yaml is valid" in " ".join(check.stdout.split())
    show = sh(python, "-m", "distillkit", "plugins", "show", "my-refresh")
    assert "plugin 'my-refresh' (distillkit-my-refresh 0.1.0)" in show.stdout

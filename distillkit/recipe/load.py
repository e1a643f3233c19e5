"""A recipe's file, and `--set` on top of it -> a validated `Recipe`, or every problem at once.

Each problem is a line like `my.yaml:7:5: run.batch: what is wrong (what was meant)`; of a value
that `--set` gave, the flag takes the place of file and line.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import BaseModel, ValidationError

from distillkit.errors import UserError, did_you_mean
from distillkit.recipe import yaml12
from distillkit.recipe.overrides import Draft, place
from distillkit.recipe.problems import Problem, problems
from distillkit.recipe.schema import ModelRecipe, Recipe
from distillkit.recipe.yaml12 import Document, YamlError
from distillkit.registry.entry_points import Installed, installed

M = TypeVar("M", bound=BaseModel)
MOST_BYTES = 8_000_000
"""Of a recipe's file: one of weights that is named by mistake is not read."""


class RecipeError(UserError):
    """A recipe that can't be used; one line a problem."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, and where it came from."""

    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]
    draft: Draft = field(repr=False, compare=False)
    """Where each value was given, for problems that are found later."""


def load_recipe(
    name: str | Path, overrides: Sequence[str] = (), plugins: Installed | None = None
) -> LoadedRecipe:
    """The recipe of that path, or the installed one of that name, with `a.b=c` overrides applied.

    Raises `RecipeError`. `plugins` replaces the installed ones.
    """
    plugins = plugins or installed()
    path = find_recipe(name)
    draft = Draft(path, _parse(path))
    for override in overrides:
        draft.override(override)
    draft.problems += _missing_packages(draft.value.get("requires"))
    return LoadedRecipe(_validated(Recipe, draft, plugins), path, tuple(overrides), draft)


def load_models(path: Path, plugins: Installed | None = None) -> ModelRecipe:
    """Teacher, student and loop of a run's recipe; its other parts may have left this machine.

    Raises `RecipeError`.
    """
    return _validated(ModelRecipe, Draft(path, _parse(path)), plugins or installed())


def _validated(model: type[M], draft: Draft, plugins: Installed) -> M:
    """What the draft describes. Raises `RecipeError` with all of its problems."""
    made, registry = None, plugins.registry
    try:
        made = model.model_validate(draft.value, context={"registry": registry})
    except ValidationError as error:
        draft.problems += problems(error, model, registry)
    if made is None or draft.problems or draft.lines:
        unknown = any(problem.unknown_part for problem in draft.problems)
        notes = [f"note: {b.origin} is broken: {b.reason}" for b in plugins.broken]
        notes += [f"note: {o} is left out by DISTILLKIT_DISABLED_PLUGINS" for o in plugins.disabled]
        raise RecipeError("\n".join(draft.report() + (notes if unknown else [])))
    return made


def dump_recipe(recipe: Recipe) -> str:
    """YAML that loads back to an equal recipe; defaults are written out."""
    return yaml12.dump(recipe.model_dump())


def find_recipes() -> dict[str, Path]:
    """The recipes that distillkit and plugins bring: name -> file."""
    return {name: recipe.path for name, recipe in sorted(installed().recipes.items())}


def find_recipe(name: str | Path) -> Path:
    """The file of that path, or the installed recipe of that name. Raises `RecipeError`."""
    path, shipped = Path(name), find_recipes()
    if str(name) in shipped and not path.is_file():
        return shipped[str(name)]
    try:
        if path.exists():
            return path
    except OSError as error:  # a name that is too long
        raise RecipeError(f"{str(name)[:60]}...: {error.strerror}") from None
    guess = did_you_mean(str(name), shipped)
    names = ", ".join(shipped) or "none"
    raise RecipeError(f"{name}: no such file, and no recipe of that name;{guess} recipes: {names}")


def header(path: Path) -> str:
    """The first line of the recipe's header comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def _parse(path: Path) -> Document:
    """The mapping in the file. Raises `RecipeError`."""
    try:
        with path.open("rb") as file:
            read = file.read(MOST_BYTES + 1)
        if len(read) > MOST_BYTES:
            raise RecipeError(f"{path}: more than {MOST_BYTES // 10**6} MB, so this is no recipe")
        document = yaml12.parse(read.decode("utf-8-sig").replace("\r\n", "\n"))
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: can't be read: {error.strerror}") from None
    except YamlError as error:
        raise RecipeError(f"{place(path, error.mark)}: {error}") from None
    if document.value is None:
        raise RecipeError(f"{path}: the recipe is empty")
    if not isinstance(document.value, dict):
        kind = "a list" if isinstance(document.value, list) else repr(document.value)[:60]
        raise RecipeError(f"{path}:1: a recipe is a mapping like `teacher: {{...}}`, not {kind}")
    return document


def _missing_packages(requires: Any) -> Iterable[Problem]:
    """Packages that the recipe asks for and that are not there."""
    for index, text in enumerate(requires if isinstance(requires, list) else []):
        path = ("requires", str(index))
        try:
            wanted = Requirement(str(text))
        except InvalidRequirement as error:
            reason = str(error).partition("\n")[0]
            yield Problem(path, f"{text!r} is not a package as pip takes it: {reason}")
            continue
        command = f"pip install {shlex.quote(str(text))}"
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            yield Problem(path, f"{wanted.name} is not installed; install it: {command}")
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            yield Problem(path, f"{wanted.name} {there} is installed; change it: {command}")

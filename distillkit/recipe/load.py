"""A recipe's file, and `--set` on top of it -> a validated `Recipe`, or every problem at once.

Each problem is a line like `my.yaml:7:5: run.batch: what is wrong (what was meant)`; of a value
that `--set` gave, the flag takes the place of file and line.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import ValidationError

from distillkit.errors import UserError, did_you_mean
from distillkit.recipe import yaml12
from distillkit.recipe.overrides import Draft, place
from distillkit.recipe.problems import Problem, problems
from distillkit.recipe.schema import Recipe
from distillkit.recipe.yaml12 import Document, YamlError
from distillkit.registry.entry_points import Installed, installed


class RecipeError(UserError):
    """A recipe that can't be used; one line a problem."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A valid recipe, and where it came from."""

    recipe: Recipe
    path: Path
    overrides: tuple[str, ...]


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
    registry = plugins.registry
    try:
        recipe = Recipe.model_validate(draft.value, context={"registry": registry})
    except ValidationError as error:
        draft.problems += problems(error, Recipe, registry)
    if draft.problems or draft.lines:
        unknown = any(problem.unknown_part for problem in draft.problems)
        notes = [f"note: {b.origin} is broken: {b.reason}" for b in plugins.broken]
        notes += [f"note: {o} is left out by DISTILLKIT_DISABLED_PLUGINS" for o in plugins.disabled]
        raise RecipeError("\n".join(draft.report() + (notes if unknown else [])))
    return LoadedRecipe(recipe, path, tuple(overrides))


def dump_recipe(recipe: Recipe) -> str:
    """YAML that loads back to an equal recipe; defaults are written out."""
    return yaml12.dump(recipe.model_dump())


def compare_recipes(before: str, now: str) -> list[str]:
    """The fields in which two dumped recipes differ: `run.seed: 0 -> 1`."""
    one, other = _flat(yaml12.parse(before).value), _flat(yaml12.parse(now).value)
    return [
        f"{field}: {one.get(field, 'absent')} -> {other.get(field, 'absent')}"
        for field in dict.fromkeys([*one, *other])
        if one.get(field) != other.get(field)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every value that is no mapping and no list of mappings, by its path."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = enumerate(value)
    elif prefix:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in inner:
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def find_recipes() -> dict[str, Path]:
    """The recipes that distillkit and plugins bring: name -> file."""
    return {name: recipe.path for name, recipe in sorted(installed().recipes.items())}


def find_recipe(name: str | Path) -> Path:
    """The file of that path, or the installed recipe of that name. Raises `RecipeError`."""
    path, shipped = Path(name), find_recipes()
    if str(name) in shipped and not path.is_file():
        return shipped[str(name)]
    if path.exists():
        return path
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
        document = yaml12.parse(path.read_text(encoding="utf-8-sig"))
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

"""In which fields two recipes differ: for runs that are resumed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from distillkit.recipe import yaml12
from distillkit.recipe.load import RecipeError, dump_recipe, load_recipe
from distillkit.recipe.schema import Recipe


def changes(started: Path, recipe: Recipe) -> list[str]:
    """How `recipe` differs from a run's file, field by field: `run.seed: 0 -> 1`; empty where it
    does not. What the file leaves out has its default, as in a run of an earlier version.
    """
    text, now = started.read_text(encoding="utf-8"), dump_recipe(recipe)
    if text == now:
        return []
    with suppress(RecipeError):  # where a part has left, its fields are compared as written
        text = dump_recipe(load_recipe(started).recipe)
    return compare_recipes(text, now)


def compare_recipes(before: str, now: str) -> list[str]:
    """The fields in which two dumped recipes differ."""
    try:
        one = _flat(yaml12.parse(before).value)
    except yaml12.YamlError as error:
        return [f"the run's recipe.yaml can't be read: {error}"]
    other = _flat(yaml12.parse(now).value)
    return [
        f"{field}: {_shown(one, field)} -> {_shown(other, field)}"
        for field in dict.fromkeys([*one, *other])
        if one.get(field) != other.get(field) or (field in one) != (field in other)
    ]


def _shown(fields: dict[str, Any], field: str) -> str:
    return yaml12.dump(fields[field]).removesuffix("...\n").strip() if field in fields else "absent"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Every value that is no mapping and no list of mappings, by its path."""
    inner: Any = ()
    if isinstance(value, dict) and value:
        inner = value.items()
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        inner = enumerate(value)
    elif prefix:
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in inner:
        found |= _flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found

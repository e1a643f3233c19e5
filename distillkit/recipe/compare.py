"""In which fields two recipes differ: for runs that are resumed.

A run that is resumed may have other batches of as many pictures an iteration, and so another number
of processes; and fields that change none of its numbers may differ.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from distillkit.recipe import yaml12
from distillkit.recipe.load import RecipeError, dump_recipe, load_recipe
from distillkit.recipe.preflight import parts_of
from distillkit.recipe.schema import Recipe

SAME_NUMBERS = (
    "requires",
    "samples.max_gb",
    "run.checkpoint_every",
    "run.keep_checkpoints",
    "run.preview_every",
    "run.trackers",
)
"""Fields of the recipe's own sections on which no weight and no figure depends; parts name theirs
in `same_result`."""
BATCHES = ("run.batch", "run.accumulate")


def changes(started: Path, recipe: Recipe, pictures: int | None, processes: int) -> list[str]:
    """What makes `recipe`, run by so many processes, another run than that of the file `started`,
    field by field: `run.seed: 0 -> 1`; empty where nothing does.

    `pictures`: those of the run's iterations; None for a run of an earlier version, which did not
    keep their number: its batches must be the same, and its processes are not looked at.
    """
    free = {".".join((*path, field)) for path, p in parts_of(recipe) for field in p.same_result}
    free.update(SAME_NUMBERS, () if pictures is None else BATCHES)
    found = every_change(started, recipe, free)
    here = pictures_of(recipe, processes)
    if pictures not in (None, here):
        run, plural = recipe.run, "es" if processes > 1 else ""
        factors = f"run.batch {run.batch} x run.accumulate {run.accumulate} x {processes} process"
        found.append(f"pictures of an iteration: {pictures} -> {here} ({factors}{plural})")
    return found


def pictures_of(recipe: Recipe, processes: int) -> int:
    """Pictures of an iteration, over all micro-batches and processes."""
    return recipe.run.batch * recipe.run.accumulate * processes


def fitting_batches(recipe: Recipe, pictures: int, processes: int) -> dict[str, int] | None:
    """`run.batch`, no larger than the recipe's where micro-batches may be added, and
    `run.accumulate` with which so many processes see `pictures` an iteration; None: they can't."""
    own, left = divmod(pictures, processes)
    if left:
        return None
    largest = own if recipe.optim.updates == "alternating" else min(recipe.run.batch, own)
    batch = next(size for size in range(largest, 0, -1) if own % size == 0)
    return dict(zip(BATCHES, (batch, own // batch), strict=True))


def every_change(started: Path, recipe: Recipe, but: Collection[str] = ()) -> list[str]:
    """How `recipe` differs from a run's file, field by field, in others than `but`. What the file
    leaves out has its default, as in a run of an earlier version."""
    text, now = started.read_text(encoding="utf-8"), dump_recipe(recipe)
    if text == now:
        return []
    with suppress(RecipeError):  # where a part has left, its fields are compared as written
        text = dump_recipe(load_recipe(started).recipe)
    return compare_recipes(text, now, but)


def compare_recipes(before: str, now: str, but: Collection[str] = ()) -> list[str]:
    """The fields, others than `but`, in which two dumped recipes differ."""
    try:
        one = _flat(yaml12.parse(before).value)
    except yaml12.YamlError as error:
        return [f"the run's recipe.yaml can't be read: {error}"]
    other = _flat(yaml12.parse(now).value)
    return [
        f"{field}: {_shown(one, field)} -> {_shown(other, field)}"
        for field in dict.fromkeys([*one, *other])
        if field not in but
        and (one.get(field) != other.get(field) or (field in one) != (field in other))
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

"""What can be told of a recipe before anything is built.

Each part knows what it will meet (`ComponentConfig.preflight`); what concerns several parts or the
recipe's own sections is looked at here. Nothing is downloaded, and torch is not imported.
"""

from __future__ import annotations

import json
import pathlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel

from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.recipe.load import LoadedRecipe, RecipeError
from distillkit.recipe.problems import Problem
from distillkit.recipe.schema import CriticConfig, Recipe
from distillkit.recipe.sections import section_remarks, teacher_fields
from distillkit.recipe.yaml12 import Path
from distillkit.registry.entry_points import installed
from distillkit.remarks import (
    MOST_HEADS,
    MOST_PARAMETERS,
    PoolSize,
    Remark,
    describe_levels,
)


def preflight(recipe: Recipe | LoadedRecipe, leave_out: Collection[str] = ()) -> list[str]:
    """Notes for the user, a sentence each, with all places that it is about. Raises `RecipeError`
    with all that can't work here.

    `leave_out`: fields of the recipe that the work at hand does not need; what can't work there is
    a note.
    """
    plain = recipe.recipe if isinstance(recipe, LoadedRecipe) else recipe
    found, places = list(_remarks(plain)), defaultdict[str, list[str]](list)
    for path, remark in found:
        if not remark.is_error:
            places[remark.message].append(".".join(path))
        elif path[0] in leave_out:
            said = f"{remark.message}. A run will need it; this does not"
            places[said].append(".".join(path))
    errors = [Problem(p, r.message) for p, r in found if r.is_error and p[0] not in leave_out]
    if errors and isinstance(recipe, LoadedRecipe):
        raise RecipeError("\n".join(recipe.draft.report(errors)))
    if errors:
        raise RecipeError("\n".join(f"{'.'.join(each.path)}: {each.message}" for each in errors))
    return [f"{', '.join(there)}: {said}" for said, there in places.items()]


def parts_of(value: Any, path: Path = ()) -> Iterator[tuple[Path, ComponentConfig]]:
    """Every part of a recipe with its place, such as ("losses", "0")."""
    inner: Any = ()
    if isinstance(value, ComponentConfig):
        yield path, value
    elif isinstance(value, BaseModel):
        inner = ((name, getattr(value, name)) for name in type(value).model_fields)
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    for name, item in inner:
        yield from parts_of(item, (*path, str(name)))


def brought_by(recipe: Recipe) -> dict[str, list[str]]:
    """Who brings the recipe's parts: `PLUGIN (PACKAGE 0.1.0)` -> `SOCKET NAME`, ..."""
    found: dict[str, list[str]] = {}
    for _, part in parts_of(recipe):
        named, parts = f"{part.socket} {part.name()}", found.setdefault(bringer(part), [])
        if named not in parts:
            parts.append(named)
    return found


def bringer(part: ComponentConfig) -> str:
    """`PLUGIN (PACKAGE 0.1.0)`: plugin, package and version that bring the part."""
    origin = installed().registry.origin(type(part))
    if origin is None:
        return type(part).__module__
    return f"{origin.plugin} ({origin.distribution} {origin.version})"


def describe_critics(recipe: Recipe) -> list[str]:
    """Size of each critic's pool, how long its heads live, and what the backbone's levels hear of
    prompt and t*, where the configs tell it."""
    lines = []
    for name, critic in recipe.all_critics().items():
        size = _size(critic, recipe)
        heads = (
            f"{size.heads:,} heads with {size.parameters / 1e6:,.1f} M parameters" if size else ""
        )
        inputs = critic.backbone.level_inputs(recipe.teacher)
        heard = describe_levels(inputs) if inputs else ""
        facts = [fact for fact in (heads, head_life(critic), heard) if fact]
        if facts:
            lines.append(f"{f'critic {name}: ' if name else ''}{'; '.join(facts)}")
    return lines


def head_life(critic: CriticConfig) -> str | None:
    """How long a head lives and how often it is trained, on average, where the fields tell it."""
    drawn = critic.pool.draw_chance()
    if drawn is None:
        return None
    reset = critic.refresh.reset_chance(drawn) if critic.refresh is not None else 0.0
    if reset is None:
        return None
    if reset == 0:
        return f"a head is trained in {drawn:.0%} of the iterations and never reset"
    life, updates = 1 / reset, drawn / reset
    whose = "of this critic's iterations" if critic.steps else "iterations"
    return f"a head lives {life:,.0f} {whose} and is trained {updates:,.1f} times, on average"


def _size(critic: CriticConfig, recipe: Recipe) -> PoolSize | None:
    channels = critic.backbone.level_channels(recipe.teacher)
    return critic.pool.pool_size(channels) if channels is not None else None


def _remarks(recipe: Recipe) -> Iterator[tuple[Path, Remark]]:
    for path, part in parts_of(recipe):
        for remark in _asked(part, part.preflight, recipe):
            yield (*path, *filter(None, remark.field.split("."))), remark
        if not recipe.teacher.has_null:
            for remark in _asked(part, _no_null, part, recipe):
                yield path, remark
    yield from section_remarks(recipe)
    for name, critic in recipe.all_critics().items():
        path = ("critics", name, "pool") if name else ("pool",)
        for remark in _asked(critic.pool, _too_large, critic, recipe):
            yield path, remark
    for field in ("cache", "real_cache"):
        yield from ((("samples", field), remark) for remark in _cache(recipe, field))
    for field in ("student", "warmup", "critic", "aux"):
        optim = getattr(recipe.optim, field)
        if optim is not None and optim.bits == 8 and find_spec("bitsandbytes") is None:
            said = "8 bits need bitsandbytes: pip install 'distillkit[8bit]'"
            yield ("optim", field, "bits"), Remark(said)


def _asked(
    part: ComponentConfig, ask: Callable[..., Iterable[Remark]], *args: Any
) -> Iterator[Remark]:
    """What the part says; a part that fails is a remark too."""
    try:
        yield from ask(*args)
    except UserError as error:
        yield Remark(str(error))
    except Exception as error:
        yield Remark(f"preflight() of {bringer(part)} failed: {type(error).__name__}: {error}")


def _no_null(part: ComponentConfig, recipe: Recipe) -> Iterator[Remark]:
    if part.needs_null():
        yield Remark(
            f"needs the unconditional condition, and the teacher '{recipe.teacher.name()}' has "
            "none; take conditional views, and no guidance"
        )


def _too_large(critic: CriticConfig, recipe: Recipe) -> Iterator[Remark]:
    size = _size(critic, recipe)
    if size and (size.heads > MOST_HEADS or size.parameters > MOST_PARAMETERS):
        yield Remark(
            f"has {size.heads:,} heads with {size.parameters / 1e9:,.0f} billion parameters, and "
            f"at most {MOST_HEADS:,} and {MOST_PARAMETERS / 1e9:.0f} billion can be held; take "
            "fewer or smaller heads"
        )


def _cache(recipe: Recipe, field: str) -> Iterator[Remark]:
    cache = getattr(recipe.samples, field) or ""
    package, _, inside = cache.removeprefix("package:").partition("/")
    if not cache.startswith("package:"):
        if cache and pathlib.Path(cache).is_file():
            yield Remark(f"{cache} is a file; name a folder")
        elif cache and field == "cache":
            yield from _other_samples(recipe, pathlib.Path(cache))
        return
    folder = _folder_of(package)
    if folder is None:
        yield Remark(f"there is no package {package!r} here; install it, or name a folder")
    elif not (folder / inside / "index.json").is_file():
        yield Remark(
            f"package {package!r} has no samples in {inside or 'its folder'!r}, and a run writes "
            "nothing into a package; name a folder, or fill this one with `distillkit precompute`"
        )
    elif field == "cache":
        yield from _other_samples(recipe, folder / inside)


def _other_samples(recipe: Recipe, folder: pathlib.Path) -> Iterator[Remark]:
    """A cache that says of itself that its samples are not those that the recipe asks for; whether
    weights and prompts are equal is seen when they are loaded."""
    try:
        there = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # nothing there yet; a damaged index is named where it is read
    samples, here = recipe.samples, teacher_fields(recipe)
    wanted = {"teacher": here, "seed": samples.seed, "dtype": samples.dtype}
    wanted |= {"count": samples.count, "batch": samples.batch}
    differing = [name for name, value in wanted.items() if there.get(name, value) != value]
    if differing:
        yield Remark(
            f"{folder} holds samples of another {', '.join(differing)} (see its index.json); name "
            "another folder, or remove this one"
        )


def _folder_of(package: str) -> pathlib.Path | None:
    """Where a package is installed."""
    try:
        found = find_spec(package)
    except (ImportError, ValueError):
        return None
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    return pathlib.Path(folders[0]) if folders else None

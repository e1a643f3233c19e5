"""Installed plugins -> the registry. A broken plugin is reported and does not stop the others.

Plugins are found by the entry points of the group "distillkit", ours and anybody's alike. The
environment's DISTILLKIT_DISABLED_PLUGINS (names, with commas between) leaves plugins out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import Distribution, EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pluggy

from distillkit import hookspecs
from distillkit.configs import ComponentConfig
from distillkit.errors import did_you_mean
from distillkit.registry import builtin
from distillkit.registry.registry import DuplicatePartError, Origin, Registry

GROUP = "distillkit"
HOOKS: dict[str, type[ComponentConfig]] = {
    name: get_args(get_args(get_type_hints(hook)["return"])[0])[0]
    for name, hook in vars(hookspecs).items()
    if name.startswith("distillkit_register_") and name != "distillkit_register_recipes"
}
"""Hook -> the class whose subclasses it returns, as its signature says."""
RECIPES = hookspecs.distillkit_register_recipes.__name__
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
"""What a part may be called: recipes, logs and the command line name it without quotes."""


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be used, or a part of one."""

    origin: Origin
    reason: str


@dataclass(frozen=True)
class RecipeFile:
    """A recipe that can be run by its name."""

    path: Path
    origin: Origin


@dataclass
class Installed:
    """What is there: the parts and recipes, who brought them, and what went wrong."""

    registry: Registry = field(default_factory=Registry)
    recipes: dict[str, RecipeFile] = field(default_factory=dict)
    plugins: list[Origin] = field(default_factory=list)
    broken: list[BrokenPlugin] = field(default_factory=list)
    disabled: list[Origin] = field(default_factory=list)


@cache
def installed() -> Installed:
    """The plugins of this environment, loaded once."""
    names = os.environ.get("DISTILLKIT_DISABLED_PLUGINS", "").split(",")
    return load(entry_points(group=GROUP), {name.strip() for name in names})


def load(points: Iterable[EntryPoint], disabled: Collection[str] = ()) -> Installed:
    """The core's own parts, then each entry point's, in the order of their names.

    Built-in plugins come first, so that no other can take one of their names.
    """
    found = Installed()
    register(found, builtin, Origin("distillkit", "distillkit", version("distillkit")))
    named = [(_origin(point), point) for point in points]
    for origin, point in sorted(named, key=lambda pair: (not pair[0].is_built_in, pair[1].name)):
        if point.name in disabled:
            found.disabled.append(origin)
            continue
        try:
            module = point.load()
        except (Exception, SystemExit) as error:
            reason = f"importing {point.value} failed: {_brief(error)}"
            found.broken.append(BrokenPlugin(origin, reason))
        else:
            register(found, module, origin)
    return found


def _origin(point: EntryPoint) -> Origin:
    return Origin(point.name, *(_name_and_version(point.dist) if point.dist else ()))


@cache  # every read parses the distribution's metadata anew, and a distribution has many plugins
def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    return distribution.name, distribution.version


def register(found: Installed, module: Any, origin: Origin) -> None:
    """Add what one plugin brings. Whatever is wrong with it ends up in `found.broken`."""
    reasons = _unheard(module)
    manager = pluggy.PluginManager("distillkit")  # its own, so that no plugin can stop another
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, origin.plugin)
    except Exception as error:
        reasons.append(_brief(error))
    for hook in (*HOOKS, RECIPES):
        caller = getattr(manager.hook, hook)
        try:
            results = caller()
        except (Exception, SystemExit) as error:
            reasons.append(f"{hook}() failed: {_brief(error)}")
            continue
        if caller.get_hookimpls():  # pluggy drops a None
            result = results[0] if results else None
            if hook == RECIPES:
                reasons += _add_recipes(found.recipes, result, origin)
            else:
                reasons += _add_all(found.registry, result, hook, HOOKS[hook], origin)
    found.broken += [BrokenPlugin(origin, reason) for reason in reasons]
    found.plugins.append(origin)


def _unheard(module: Any) -> list[str]:
    """What is wrong with hooks that pluggy would pass over in silence."""
    marked = {name for name in dir(module) if hasattr(getattr(module, name), "distillkit_impl")}
    named = {name for name in dir(module) if name.startswith("distillkit_register_")}
    known = (*HOOKS, RECIPES)
    if not marked | named:
        return ["it has no hook: no function named distillkit_register_... (distillkit.hookspecs)"]
    return [
        f"there is no hook {name};{did_you_mean(name, known)} hooks: {', '.join(known)}"
        for name in sorted((marked | named) - set(known))
    ] + [f"{name} is not marked with @hookimpl" for name in sorted((named & set(known)) - marked)]


def _add_all(
    registry: Registry, result: Any, hook: str, base: type[ComponentConfig], origin: Origin
) -> list[str]:
    """Register what a hook returned; what is wrong with it."""
    if not isinstance(result, list):
        return [f"{hook}() returned {result!r}, not a list of subclasses of {base.__name__}"]
    reasons = []
    for config in result:
        reason = _flaw(config, base)
        if reason:
            reasons.append(f"{hook}() returned {_show(config)}, {reason}")
            continue
        try:
            registry.add(config, origin)
        except DuplicatePartError as error:
            reasons.append(str(error))
    return reasons


def _add_recipes(recipes: dict[str, RecipeFile], result: Any, origin: Origin) -> list[str]:
    """Keep the recipes that a hook returned; what is wrong with it."""
    if not isinstance(result, list) or not all(isinstance(path, Path) for path in result):
        return [f"{RECIPES}() returned {result!r}, not a list of paths (pathlib.Path)"]
    reasons = []
    for path in result:
        folder = path if path.is_dir() else path.parent
        files = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            reasons.append(f"{RECIPES}() returned {path}, where no recipe is (.yaml)")
            continue
        for file in files:
            name = file.relative_to(folder).with_suffix("").as_posix()
            if name in recipes:
                first = recipes[name].origin
                reasons.append(
                    f"recipe '{name}' is brought by {first} and by {origin}; "
                    "the first keeps the name"
                )
            else:
                recipes[name] = RecipeFile(file, origin)
    return reasons


def _flaw(config: Any, base: type[ComponentConfig]) -> str:
    """Why `config` can't be a part of the socket; nothing where it can."""
    if not isinstance(config, type):
        return f"which is no class: a hook returns subclasses of {base.__name__}"
    if not issubclass(config, base) or config is base:
        return f"which is not a subclass of {base.__name__}"
    if taken := _reserved_names(base) & config.model_fields.keys():
        return f"which has a field `{min(taken)}`: that name is reserved, choose another"
    name = config.model_fields["type"].default
    if not isinstance(name, str) or get_args(config.model_fields["type"].annotation) != (name,):
        return 'which has no name: it needs a field `type: Literal["..."] = "..."`'
    if not NAME.fullmatch(name):
        return f"whose name {name!r} has other characters than letters, digits and . _ + -"
    if config.socket != base.socket:
        return f"whose socket was changed from '{base.socket}' to '{config.socket}'"
    if all("build" not in vars(owner) for owner in config.__mro__ if owner not in base.__mro__):
        return "which has no `build` of its own"
    return ""


def _reserved_names(base: type[ComponentConfig]) -> set[str]:
    """Methods and class variables of a socket's base class, which no field of a part may hide."""
    names = {name for owner in (ComponentConfig, base) for name in vars(owner)}
    fields = base.model_fields.keys()
    return {n for n in names - fields if not n.startswith(("_", "model_"))}


def _show(config: Any) -> str:
    return config.__name__ if isinstance(config, type) else repr(config)


def _brief(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())

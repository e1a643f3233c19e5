"""`check_plugin`: a plugin's module, its hooks and its recipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points

from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit.registry import builtin
from distillkit.registry.entry_points import GROUP, Installed, load, register
from distillkit.registry.registry import Entry, Origin
from distillkit.testing.findings import Findings, fail_with

HEAVY = ("torch", "numpy", "diffusers", "transformers", "accelerate", "PIL")
"""What a plugin's module must not import before a part is built."""


def check_plugin(module: str) -> None:
    """Hold a plugin's module to what distillkit asks of it.

    Its hooks are heard, what they return is in order, every field is documented, its recipes are
    valid and its names free beside what is installed, and importing it loads nothing heavy (in a
    process of its own).
    Raises AssertionError with every finding.
    """

    def findings() -> Findings:
        yield from _heavy_imports(module)
        found = Installed()
        register(found, import_module(module), Origin(module))
        reasons = [broken.reason for broken in found.broken]
        beside = _beside_the_installed(module)
        yield from reasons
        taken = (b.reason for b in beside.broken if b.origin == Origin(module))
        yield from (reason for reason in taken if reason not in reasons)
        if not found.broken and not found.registry.entries() and not found.recipes:
            yield "its hooks return nothing"
        for entry in found.registry.entries():
            yield from _undocumented(entry)
        yield from _recipes(found, beside)

    fail_with(f"plugin {module}", findings())


def _beside_the_installed(module: str) -> Installed:
    """The plugin after all others, so that it is told of names that they have."""
    together = load(point for point in entry_points(group=GROUP) if point.value != module)
    if module != builtin.__name__:  # which is always there
        register(together, import_module(module), Origin(module))
    return together


def _recipes(found: Installed, together: Installed) -> Findings:
    for recipe in found.recipes.values():
        try:
            load_recipe(recipe.path, plugins=together)
        except UserError as error:
            yield from str(error).splitlines()


def _heavy_imports(module: str) -> Iterator[str]:
    code = f"import sys, {module}; print(*({set(HEAVY)} & set(sys.modules)))"
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    if done.returncode:
        yield f"importing it fails: {done.stderr.strip().splitlines()[-1]}"
    for name in sorted(done.stdout.split()):
        yield f"importing it loads {name}: import that in `build`, so that commands stay quick"


def _undocumented(entry: Entry) -> Iterator[str]:
    what = f"{entry.socket} '{entry.name}'"
    if not vars(entry.config).get("__doc__"):
        yield f"{what} has no docstring: its first line is what `plugins list` shows"
    for name, field in entry.config.model_fields.items():
        if name != "type" and not field.description:
            yield f"{what}: the field `{name}` has no docstring under it"

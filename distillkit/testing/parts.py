"""`check`: a part and its contract. `check_plugin`: a plugin's module and its hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import entry_points

from distillkit import contracts
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.recipe import yaml12
from distillkit.recipe.load import load_recipe
from distillkit.registry.entry_points import GROUP, Installed, load, register
from distillkit.registry.registry import Entry, Origin
from distillkit.testing import critics, families, files, schedules
from distillkit.testing.findings import Findings, fail_with
from distillkit.testing.outlines import outline

HEAVY = ("torch", "numpy", "diffusers", "transformers", "accelerate", "PIL")
"""What a plugin's module must not import before a part is built."""


def check(
    config: ComponentConfig,
    *,
    teacher: contracts.Teacher | None = None,
    channels: tuple[int, ...] = (8, 8),
) -> None:
    """Hold the part that `config` builds to the contract of its socket.

    `teacher` is for students, backbones and losses that need one of their own family; `channels`
    are the backbone levels that a pool gets. Raises AssertionError with every finding.
    """
    checks: dict[str, Callable[[], Findings]] = {
        "teacher": lambda: families.teacher(config),
        "student": lambda: families.student(config, taught_by()),
        "backbone": lambda: families.backbone(config, taught_by()),
        "pool": lambda: critics.pool(config, channels),
        "refresh": lambda: critics.refresh(config),
        "loss": lambda: critics.loss(config, taught_by()),
        "refinement": lambda: schedules.refinement(config),
        "prompts": lambda: schedules.prompts(config),
        "metrics": lambda: schedules.metrics(config),
        "exporter": lambda: files.exporter(config, taught_by()),
        "layout": lambda: files.layout(config),
    }

    def taught_by() -> contracts.Teacher:
        return teacher or ExampleTeacherConfig().build()

    def findings() -> Findings:
        yield from written_and_read(config)
        if config.socket not in checks:
            yield f"there are no checks for {config.socket}s; sockets: {', '.join(checks)}"
        else:
            yield from checks[config.socket]()
        if config.socket in ("teacher", "student", "backbone"):
            yield from outline(config, *([] if config.socket == "teacher" else [taught_by()]))

    fail_with(f"{config.socket} '{config.name()}'", findings())


def check_plugin(module: str) -> None:
    """Hold a plugin's module to what distillkit asks of it.

    Its hooks are heard, what they return is in order, every field is documented, its recipes are
    valid beside what is installed, and importing it loads nothing heavy (in a process of its own).
    Raises AssertionError with every finding.
    """

    def findings() -> Findings:
        yield from _heavy_imports(module)
        found = Installed()
        register(found, import_module(module), Origin(module))
        yield from (broken.reason for broken in found.broken)
        if not found.broken and not found.registry.entries() and not found.recipes:
            yield "its hooks return nothing"
        for entry in found.registry.entries():
            yield from _undocumented(entry)
        yield from _recipes(module, found)

    fail_with(f"plugin {module}", findings())


def written_and_read(config: ComponentConfig) -> Findings:
    """A config that is written as YAML and read again is equal."""
    try:
        text = yaml12.dump(config.model_dump())
        again = type(config).model_validate(yaml12.parse(text).value)
    except Exception as error:
        yield f"its config does not survive being written as YAML: {error}"
        return
    if again != config:
        yield f"its config comes back from YAML as {again!r}, not {config!r}"


def _recipes(module: str, found: Installed) -> Findings:
    others = [point for point in entry_points(group=GROUP) if point.value != module]
    together = load(others)
    register(together, import_module(module), Origin(module))
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

"""A recipe of one's own to start from: a copy, and the schema by which editors check it."""

from __future__ import annotations

from pathlib import Path

from distillkit.atomic import write_text
from distillkit.errors import UserError
from distillkit.recipe.json_schema import recipe_schema
from distillkit.recipe.load import find_recipe
from distillkit.registry.entry_points import installed

SCHEMA = "recipe.schema.json"
MODELINE = f"# yaml-language-server: $schema={SCHEMA}"
"""By this line in a recipe's header, editors with the YAML language server find the schema."""


def copy_recipe(name: str, dest: Path | None = None) -> Path:
    """Copy the recipe of that name or path; a schema of what is installed here goes beside it.

    `dest` is the new file, or its folder. Raises `UserError`; no file is overwritten.
    """
    source = find_recipe(name)
    to = Path(source.name) if dest is None else dest
    if to.is_dir():
        to = to / source.name
    if to.suffix not in (".yaml", ".yml"):
        raise UserError(f"{to}: a recipe's name ends in .yaml")
    if to.exists():
        raise UserError(f"{to} is there already; name another file, or remove it")
    write_text(to, with_modeline(source.read_text(encoding="utf-8")))
    schema = to.with_name(SCHEMA)
    if not schema.exists() or '"title": "distillkit recipe"' in schema.read_text(
        "utf-8", "replace"
    ):
        write_text(schema, recipe_schema(installed().registry))
    return to


def with_modeline(text: str) -> str:
    """The recipe with the editors' line at the end of its header."""
    if MODELINE in text:
        return text
    lines = text.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    lines = [line for i, line in enumerate(lines) if i >= end or "yaml-language-server" not in line]
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join([*lines[:end], f"{MODELINE}\n", *lines[end:]])

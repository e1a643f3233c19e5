"""`distillkit recipes list`: the recipes that come with distillkit."""

from __future__ import annotations

import typer

recipes = typer.Typer(no_args_is_help=True, help="What can be run.")


@recipes.callback()
def group() -> None:
    """What can be run."""


@recipes.command("list")
def list_() -> None:
    """Every recipe that comes with distillkit, by the name that `run` and `check` take."""
    from rich.table import Table

    from distillkit.cli._console import console
    from distillkit.recipe_file import find_recipes, header

    table = Table("recipe", "what it does", box=None, pad_edge=False)
    for name, path in find_recipes().items():
        table.add_row(name, header(path))
    console().print(table)

"""`distillkit recipes list | show | copy`: what can be run, and where to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

recipes = typer.Typer(no_args_is_help=True, help="What can be run, and where to start from.")


@recipes.callback()
def group() -> None:
    """What can be run, and where to start from."""


@recipes.command("list")
def list_() -> None:
    """Every recipe that distillkit and plugins bring, by the name that `run` and `check` take."""
    from distillkit.cli.terminal import columns
    from distillkit.recipe.load import find_recipes, header

    found = find_recipes().items()
    columns.show(("recipe", "what it does"), *((name, header(path)) for name, path in found))


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(help="A name of `recipes list`, or a file.")],
) -> None:
    """Print a recipe: what it needs, how to run it, every number with its source."""
    from distillkit.recipe.load import find_recipe

    print(find_recipe(name).read_text(encoding="utf-8"), end="")


@recipes.command()
def copy(
    name: Annotated[str, typer.Argument(help="A name of `recipes list`, or a file.")],
    dest: Annotated[
        Path | None,
        typer.Argument(help="The new file, or its folder.", show_default="NAME.yaml, here"),
    ] = None,
) -> None:
    """Copy a recipe to change it, with a schema beside it by which editors check it."""
    from distillkit.cli.terminal.console import console
    from distillkit.recipe.copy import copy_recipe

    to = copy_recipe(name, dest)
    out = console()
    out.print(f"{to}\n\n  distillkit check {to}\n  distillkit run {to}", soft_wrap=True)

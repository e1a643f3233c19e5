"""`distillkit plugins list | show | new`: what is installed, and how to add to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

plugins = typer.Typer(no_args_is_help=True, help="What is installed, and how to add to it.")


@plugins.callback()
def group() -> None:
    """What is installed, and how to add to it."""


@plugins.command("list")
def list_() -> None:
    """Every part that a recipe can name, and every plugin that is broken."""
    from distillkit.cli.terminal import columns
    from distillkit.registry.entry_points import installed

    found = installed()
    entries = found.registry.entries()
    columns.show(
        ("socket", "name", "what it is", "plugin", "version"),
        *((e.socket, e.name, e.summary, e.origin.plugin, e.origin.version) for e in entries),
    )
    for origin in found.disabled:
        print(f"\nleft out by DISTILLKIT_DISABLED_PLUGINS: {origin}")
    for broken in found.broken:
        print(f"\nbroken: {broken.origin}\n  {broken.reason}")


@plugins.command()
def show(
    name: Annotated[
        str,
        typer.Argument(help="A part's name, as `plugins list` shows it, or a recipe's section."),
    ],
    socket: Annotated[
        str | None, typer.Option(help="Its socket, where several have a part of that name.")
    ] = None,
) -> None:
    """A part's fields with types, bounds, defaults and meaning, and lines for a recipe."""
    from rich.table import Table

    from distillkit.cli.terminal.console import console
    from distillkit.configs import ComponentConfig
    from distillkit.recipe import describe
    from distillkit.registry.entry_points import installed

    out, config = console(), None if socket else describe.find_section(name)
    if config is not None:
        out.print(f"{name}: a section of recipes, and no part.  {config.__doc__}\n")
    else:
        entry = describe.find_part(installed().registry, name, socket)
        config = entry.config
        out.print(f"{entry.socket} '{entry.name}'  {entry.summary}\n{entry.origin}\n")
    table = Table("field", "type", "default", "what it is", box=None, pad_edge=False)
    for card in describe.fields(config):
        table.add_row(card.name, card.kind, card.default, card.meaning)
    out.print(table if table.rows else "It has no fields.")
    if issubclass(config, ComponentConfig) and describe.recipe_field(config.socket):
        out.print("\nIn a recipe:\n")
        out.print(describe.snippet(config), soft_wrap=True)


@plugins.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the plugin and its parts: my-pool.")],
    socket: Annotated[
        list[str],
        typer.Option(help="What it is: pool, loss, teacher, ...; can be given many times."),
    ],
    recipe: Annotated[
        str,
        typer.Option(help="Recipe that gets the new parts: a name of `recipes list`, or a file."),
    ] = "starter",
    out: Annotated[Path, typer.Option(help="Folder to make it in.")] = Path(),
) -> None:
    """Write a plugin as a package of its own, with a part a socket; its tests pass at once."""
    from distillkit.cli.terminal.console import console
    from distillkit.recipe.describe import recipe_field
    from distillkit.registry.entry_points import installed
    from distillkit.scaffold.new_plugin import new_plugin

    folder = new_plugin(name, socket, recipe, out, installed())
    say = console()
    say.print(f"{folder}\n", soft_wrap=True)
    say.print(f"  pip install -e {folder}\n  python -m pytest {folder}/tests", soft_wrap=True)
    for each in dict.fromkeys(socket):
        say.print(f"  distillkit plugins show {name} --socket {each}")
    if any(map(recipe_field, socket)):
        say.print(f"  distillkit check {name}")

"""`distillkit plugins list`: which parts are installed, who brought them, what is broken."""

from __future__ import annotations

import typer

plugins = typer.Typer(no_args_is_help=True, help="What is installed.")


@plugins.callback()
def group() -> None:
    """What is installed."""


@plugins.command("list")
def list_() -> None:
    """Every part that a recipe can name, and every plugin that is broken."""
    from rich.table import Table

    from distillkit.cli._console import console
    from distillkit.plugins import installed

    found = installed()
    table = Table("socket", "name", "what it is", "plugin", "version", box=None, pad_edge=False)
    for entry in found.registry.entries():
        origin = entry.origin
        table.add_row(entry.socket, entry.name, entry.summary, origin.plugin, origin.version)
    out = console()
    out.print(table)
    for origin in found.disabled:
        out.print(f"\nleft out by DISTILLKIT_DISABLED_PLUGINS: {origin}")
    for broken in found.broken:
        out.print(f"\nbroken: {broken.origin}\n  {broken.reason}")

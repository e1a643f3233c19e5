"""The `distillkit` command: one file a command.

A file in this folder defines what it is named after: `check.py` has the function `check`,
`plugins.py` the group `plugins` with its commands. Every file is imported for `--help`, so at its
top stands nothing heavier than typer; what a command needs, its function imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated

import typer

from distillkit import __version__
from distillkit.errors import UserError


def main(args: Sequence[str] | None = None) -> None:
    """Entry point. What the user can mend ends in a sentence and exit code 2."""
    # Importing transformers warns of things that none of our parts uses, torchvision among them.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        build()(None if args is None else list(args))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def build() -> typer.Typer:
    """The whole command, as the files of this folder make it."""
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(distillkit)
    for module in iter_modules(__path__):
        if module.name.startswith("_"):
            continue
        command = getattr(import_module(f"{__name__}.{module.name}"), module.name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=module.name)
        else:
            app.command(module.name)(command)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        print(f"distillkit {__version__}")
        raise typer.Exit


def distillkit(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Distil a slow diffusion model into one that needs one to four steps."""

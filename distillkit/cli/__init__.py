"""The `distillkit` command: one file a command, listed in `build`.

Every command's file is imported for `--help`, so at its top stands nothing heavier than typer; what
a command needs, its function imports.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from distillkit.errors import UserError


def main(args: Sequence[str] | None = None) -> None:
    """Entry point. A `UserError` becomes a sentence on stderr and exit code 2."""
    # Importing transformers warns of packages that none of our parts uses, such as torchvision.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        build()(None if args is None else list(args))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def build() -> typer.Typer:
    """The command with its subcommands, in the order in which `--help` lists them."""
    # Imported here: in this package's namespace `run` is the module, not the command.
    from distillkit.cli.adapt import adapt
    from distillkit.cli.check import check
    from distillkit.cli.export import export
    from distillkit.cli.plan import plan
    from distillkit.cli.plugins import plugins
    from distillkit.cli.precompute import precompute
    from distillkit.cli.recipes import recipes
    from distillkit.cli.results.card import card
    from distillkit.cli.results.compare import compare
    from distillkit.cli.results.eval import eval
    from distillkit.cli.results.play import play
    from distillkit.cli.results.report import report
    from distillkit.cli.run import run
    from distillkit.cli.sample import sample
    from distillkit.cli.schema import schema

    commands: list[Callable[..., None]] = [
        run,
        check,
        plan,
        precompute,
        sample,
        eval,
        play,
        compare,
        report,
        card,
        export,
        adapt,
        schema,
    ]
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(distillkit)
    for command in commands:
        app.command()(command)
    app.add_typer(recipes, name="recipes")
    app.add_typer(plugins, name="plugins")
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"distillkit {version('distillkit')}")
        raise typer.Exit


def distillkit(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Distil a slow diffusion model into one that needs one to four steps."""

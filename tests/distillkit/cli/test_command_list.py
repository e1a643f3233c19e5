"""The list of commands is complete."""

from __future__ import annotations

from pkgutil import iter_modules

import typer.main

from distillkit import cli
from distillkit.cli import results


def test_every_file_of_the_folder_is_a_command() -> None:
    folders = [*cli.__path__, *results.__path__]
    files = {module.name for module in iter_modules(folders) if not module.ispkg}
    command = typer.main.get_command(cli.build())
    assert set(command.commands) == files  # type: ignore[attr-defined]

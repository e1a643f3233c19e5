"""`distillkit report RUN`: the page of a run, at any time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillkit.errors import UserError


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, finished or not.")],
) -> None:
    """Write the run's report.html from what the run holds by now."""
    from distillkit.cli.terminal.console import console
    from distillkit.runs.folder import RunFolder

    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no recipe.yaml. Name the folder that "
            "`distillkit run` printed."
        )

    from distillkit.report.report import write_report

    console().print(str(write_report(folder)))

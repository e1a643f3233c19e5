"""What several commands take: a recipe, and changes to it."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="A recipe's file, or a name of `recipes list`.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change a field; can be given many times."),
]

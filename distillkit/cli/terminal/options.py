"""What several commands take: a recipe and changes to it, a model and weights to put into it."""

from __future__ import annotations

from typing import Annotated

import typer

RecipeName = Annotated[str, typer.Argument(help="A recipe's file, or a name of `recipes list`.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change a field; can be given many times."),
]
ModelName = Annotated[
    str,
    typer.Argument(help="A run, or a published folder; with --weights or --shift: any model."),
]
Weights = Annotated[
    str | None, typer.Option(help="A file of one-step weights, put into the model.")
]
Shift = Annotated[
    int | None, typer.Option(help="Their timestep shift, where the file does not state it.")
]
Family = Annotated[
    str | None, typer.Option(help="The model's family, where its files do not tell.")
]
LicenceId = Annotated[
    str | None,
    typer.Option(
        "--license",
        help="Licence of the student, as the hub names it (apache-2.0, openrail++, ...).",
        show_default="the one that all it derives from state",
    ),
]
BaseModels = Annotated[
    list[str] | None,
    typer.Option(
        help="Hub name of a model that it derives from, where the recipe names a path; can be "
        "given many times."
    ),
]

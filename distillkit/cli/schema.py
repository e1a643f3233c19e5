"""`distillkit schema`: what editors need to complete and check recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def schema(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; without it, the screen.")
    ] = None,
) -> None:
    """Print the JSON schema of recipes, with every part that is installed."""
    from distillkit.atomic import write_text
    from distillkit.recipe.json_schema import recipe_schema
    from distillkit.registry.entry_points import installed

    text = recipe_schema(installed().registry)
    if output is None:
        print(text, end="")
        return
    write_text(output, text)
    print(f"{output}: a recipe beside it is checked by editors that read this line of it:")
    print(f"# yaml-language-server: $schema={output.name}")

"""`distillkit check RECIPE`: is the recipe valid, and what does it resolve to?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillkit.cli.terminal.options import Changes, RecipeName

if TYPE_CHECKING:
    from pydantic import BaseModel


def check(
    recipe: RecipeName,
    set_: Changes = None,
) -> None:
    """Validate a recipe and show it with its defaults, or everything that is wrong with it."""
    from rich.table import Table

    from distillkit.cli.terminal.console import console
    from distillkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())
    table = Table(box=None, pad_edge=False, show_header=False)
    for field in type(loaded.recipe).model_fields:
        for name, value in _rows(field, getattr(loaded.recipe, field)):
            table.add_row(name, value)
    out = console()
    out.print(f"{loaded.path} is valid.\n")
    out.print(table)


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    """The lines of one field of the recipe: a list of parts takes one line a part."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return [(name, _fields(value))]
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return [row for i, item in enumerate(value) for row in _rows(f"{name}.{i}", item)]
    return [(name, _shown(value))]


def _fields(model: BaseModel) -> str:
    """`dynamic  timesteps=[10, 250], heads_per_slot=4`."""
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    head = f"{fields.pop('type')}  " if "type" in fields else ""
    return head + ", ".join(f"{name}={_shown(value)}" for name, value in fields.items())


def _shown(value: Any) -> str:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return f"({_fields(value)})"
    if isinstance(value, list | tuple):
        shown = [_shown(item) for item in value[:8]] + ["..."] * (len(value) > 8)
        return f"[{', '.join(shown)}]"
    return "none" if value is None else str(value)

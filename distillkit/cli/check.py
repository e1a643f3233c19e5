"""`distillkit check RECIPE`: is the recipe valid, will it work here, what does it resolve to?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distillkit.cli.terminal.options import Changes, RecipeName

if TYPE_CHECKING:
    from pydantic import BaseModel


def check(
    recipe: RecipeName,
    set_: Changes = None,
) -> None:
    """Validate a recipe and show it with its defaults, or everything that is wrong with it.

    Files, packages, levels and sizes that its parts will meet are looked at; nothing is downloaded.
    """
    from rich.table import Table

    from distillkit.cli.terminal.console import console
    from distillkit.recipe.load import RecipeError, load_recipe
    from distillkit.recipe.preflight import bringer, describe_critics, parts_of, preflight

    loaded = load_recipe(recipe, set_ or ())
    try:
        notes = preflight(loaded)
    except RecipeError as error:
        said = f"{loaded.path} is a valid recipe, and a run of it would stop here:"
        raise RecipeError(f"{said}\n{error}") from None
    values, bringers = (Table(box=None, pad_edge=False, show_header=False) for _ in range(2))
    for field in type(loaded.recipe).model_fields:
        for name, value in _rows(field, getattr(loaded.recipe, field)):
            values.add_row(name, value)
    for part in {(p.socket, p.name()): p for _, p in parts_of(loaded.recipe)}.values():
        bringers.add_row(f"{part.socket} {part.name()}", bringer(part))
    out = console()
    out.print(f"{loaded.path} is valid.\n")
    out.print(values, "", bringers, sep="\n")
    lines = [*describe_critics(loaded.recipe), *(f"note: {note}" for note in notes)]
    if lines:
        out.print("", *lines, sep="\n", soft_wrap=True)


def _rows(name: str, value: Any) -> list[tuple[str, str]]:
    """The lines of one field of the recipe: several parts take a line each."""
    from pydantic import BaseModel

    several: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    elif isinstance(value, list | tuple) and value and isinstance(value[0], BaseModel):
        several = enumerate(value)
    if several and value:
        return [row for key, item in several for row in _rows(f"{name}.{key}", item)]
    return [(name, _fields(value) if isinstance(value, BaseModel) else _shown(value))]


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

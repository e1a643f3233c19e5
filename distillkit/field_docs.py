"""What a config's field means: the string under it in the source.

Pydantic's `use_attribute_docstrings` reads the same, but when a class is made, which costs a fifth
of `distillkit plugins list`. Here it is read when somebody asks: handbook, schema, error messages.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from typing import Any

from pydantic import BaseModel


@cache
def meanings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> its meaning, empty where nothing says it. What `Field(description=...)` says counts.

    A field that a subclass declares anew has the subclass's meaning.
    """
    under: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        if issubclass(owner, BaseModel) and owner is not BaseModel:
            under |= _under_fields(owner)
    fields = model.model_fields.items()
    return {name: field.description or under.get(name, "") for name, field in fields}


def add_to_schema(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Pydantic's `json_schema_extra`: a field's meaning is its description."""
    for name, node in schema.get("properties", {}).items():
        if meaning := meanings(model).get(name):
            node["description"] = meaning


@cache
def _under_fields(owner: type) -> dict[str, str]:
    """The fields that the class itself declares, each with the string under it, or nothing."""
    try:
        source = inspect.getsource(owner)
    except (OSError, TypeError):  # made without a file
        return {}
    # A class inside a function is indented; dedenting it would trip over text at the margin.
    tree = ast.parse(f"if True:\n{source}" if source[0].isspace() else source)
    body = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)).body
    return {
        node.target.id: _text(below)
        for node, below in pairwise([*body, ast.Pass()])
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _text(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        text = node.value.value
        return inspect.cleandoc(text) if isinstance(text, str) else ""
    return ""

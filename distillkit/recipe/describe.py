"""An installed part for its reader: its fields with types, bounds and defaults, and lines to paste.

Read from the JSON schema of its config, so that what is shown is what is validated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from distillkit.configs import ComponentConfig, Config
from distillkit.errors import UserError, did_you_mean
from distillkit.recipe.schema import Recipe
from distillkit.recipe.yaml12 import RecipeDumper
from distillkit.registry.registry import Entry, Registry, UnknownPartError

WIDTH = 96
"""Longest line of a snippet that stays one line."""

_KINDS = {"integer": "whole number", "number": "number", "string": "text", "null": "none"}


@dataclass(frozen=True)
class FieldCard:
    """What a recipe's author has to know of a field."""

    name: str
    kind: str
    """Type and bounds in words."""
    default: str
    """As YAML, or "required"."""
    meaning: str


def find_part(registry: Registry, name: str, socket: str | None = None) -> Entry:
    """The part of that name. Raises `UserError`: not there, or there in several sockets."""
    entries = registry.entries()
    sockets = list(dict.fromkeys(entry.socket for entry in entries))
    if socket is not None and socket not in sockets:
        guess = did_you_mean(socket, sockets)
        raise UserError(f"no socket '{socket}';{guess} sockets with parts: {', '.join(sockets)}")
    among = [entry for entry in entries if socket in (None, entry.socket)]
    found = [entry for entry in among if entry.name == name]
    if not found:
        names = sorted({entry.name for entry in among})
        raise UserError(
            f"no {socket or 'part'} '{name}';{did_you_mean(name, names)} "
            f"installed: {', '.join(names)}"
        )
    if len(found) > 1:
        choices = " or ".join(f"--socket {entry.socket}" for entry in found)
        raise UserError(f"'{name}' names {len(found)} parts; say which: {choices}")
    try:
        return registry.get(found[0].socket, name)
    except UnknownPartError as error:  # two plugins bring it
        raise UserError(str(error)) from None


def find_section(name: str) -> type[Config] | None:
    """The recipe's own mapping of that name: `samples`, `run`, `optim`, `optim.student`, ..."""
    model: type[BaseModel] | None = Recipe
    for word in name.split("."):
        field = model.model_fields.get(word) if model is not None else None
        options = (field.annotation, *get_args(field.annotation)) if field is not None else ()
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    if model is None or not issubclass(model, Config) or issubclass(model, ComponentConfig):
        return None
    return model


def fields(config: type[Config]) -> list[FieldCard]:
    """Every field but `type`, those of nested mappings after their owner."""
    schema = config.model_json_schema(schema_generator=_PartsByName)
    return list(_cards(schema, schema.get("$defs", {}), ""))


class _PartsByName(GenerateJsonSchema):
    """A schema in which a part is `{"part": SOCKET}`."""

    def function_plain_schema(
        self, schema: core_schema.PlainValidatorFunctionSchema
    ) -> JsonSchemaValue:
        return {"part": (schema.get("metadata") or {}).get("socket", "anything")}


def _cards(schema: Any, defs: Any, prefix: str) -> Iterator[FieldCard]:
    required = schema.get("required", [])
    for name, node in schema["properties"].items():
        if name == "type" and not prefix:
            continue
        default = "required" if name in required else inline(node.get("default"))
        meaning = " ".join(node.get("description", "").split())
        yield FieldCard(prefix + name, kind(node, defs), default, meaning)
        for inner in _models(node, defs):
            yield from _cards(inner, defs, f"{prefix}{name}.")


def _models(node: Any, defs: Any) -> Iterator[Any]:
    """Schemas of mappings with fixed fields that can stand at the node."""
    for option in (node, *node.get("anyOf", ())):
        target = _resolved(option, defs)
        if "properties" in target:
            yield target


def _resolved(node: Any, defs: Any) -> Any:
    return defs[node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def kind(node: Any, defs: Any) -> str:
    """A JSON schema in words: `whole number, 0 to 999`."""
    node = _resolved(node, defs)
    if "part" in node:
        return f"{node['part']}, a mapping with `type`"
    if "anyOf" in node:
        return " or ".join(kind(option, defs) for option in node["anyOf"])
    if "const" in node or "enum" in node:
        return " or ".join(map(inline, node.get("enum", [node.get("const")])))
    given = node.get("type")
    if given == "boolean":
        return "true or false"
    if given == "array":
        items = node.get("prefixItems")
        inner = kind(items[0] if items else node.get("items", {}), defs)
        return f"list of {_span(node, 'Items')}({inner})" if inner else "list"
    if given == "object":
        if "properties" in node:
            return "mapping with the fields below"
        return f"mapping of {_span(node, 'Properties')}keys to ({_values(node, defs)})"
    return ", ".join(filter(None, [_KINDS.get(given, "anything"), _bounds(node)]))


def _values(node: Any, defs: Any) -> str:
    """What stands behind the keys of a mapping without fixed fields."""
    patterns = list(node.get("patternProperties", {}).values())
    values = patterns[0] if patterns else node.get("additionalProperties")
    return kind(values, defs) if isinstance(values, dict) else "anything"


def _span(node: Any, what: str) -> str:
    """`2 `, `1 or more `, or nothing."""
    low, high = node.get(f"min{what}"), node.get(f"max{what}")
    if low is not None and low == high:
        return f"{low} "
    return "" if low is None else f"{low} or more "


def _bounds(node: Any) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    words = [
        f"{low} to {high}" if None not in (low, high) else "",
        f"at least {low}" if low is not None and high is None else "",
        f"at most {high}" if high is not None and low is None else "",
        f"above {node['exclusiveMinimum']}" if "exclusiveMinimum" in node else "",
        f"below {node['exclusiveMaximum']}" if "exclusiveMaximum" in node else "",
        f"a multiple of {node['multipleOf']}" if "multipleOf" in node else "",
        f"matching {node['pattern']}" if "pattern" in node else "",
    ]
    return ", ".join(filter(None, words))


def inline(value: Any) -> str:
    """YAML in one line."""
    text = yaml.dump(
        value,
        Dumper=RecipeDumper,
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=10**6,
    )
    return text.removesuffix("...\n").strip()


def recipe_field(socket: str) -> str | None:
    """The recipe's field for parts of a socket; none where recipes do not name them."""
    field = "losses" if socket == "loss" else socket
    return field if field in Recipe.model_fields else None


def snippet(config: type[ComponentConfig]) -> str:
    """Lines for a recipe that name the part and validate; what is optional and empty is left out.

    A required field has its first `examples`, or the least that its schema allows.
    """
    schema = config.model_json_schema()
    values: dict[str, Any] = {"type": config.name()}
    for name, field in config.model_fields.items():
        if field.is_required():
            node = schema["properties"][name]
            values[name] = field.examples[0] if field.examples else _least(node, schema)
    part = config.model_validate(values).model_dump()
    part = {name: value for name, value in part.items() if value is not None}
    owner = recipe_field(config.socket)
    if owner is None:
        return inline(part)
    is_list = owner == "losses"
    head = f"{owner}:\n  - " if is_list else f"{owner}: "
    if len(line := inline(part)) + len(owner) + 4 <= WIDTH:
        return head + line
    lines = [f"{name}: {inline(value)}" for name, value in part.items()]
    if is_list:
        return head + "\n    ".join(lines)
    return "\n  ".join([f"{owner}:", *lines])


def _least(node: Any, schema: Any) -> Any:
    """The least value that a JSON schema allows, near enough."""
    node = _resolved(node, schema.get("$defs", {}))
    if "anyOf" in node:
        return _least(node["anyOf"][0], schema)
    if "const" in node or "enum" in node:
        return node.get("enum", [node.get("const")])[0]
    match node.get("type"):
        case "string":
            return "..."
        case "boolean":
            return False
        case "array":
            return [_least(node.get("items", {}), schema)] * node.get("minItems", 0)
        case "object":
            wanted = node.get("required", [])
            return {name: _least(node["properties"][name], schema) for name in wanted}
        case "integer" | "number":
            return node.get("minimum", node.get("exclusiveMinimum", 0) + 1)
    return None

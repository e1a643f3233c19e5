"""YAML as recipes use it: YAML 1.2's scalars, no key twice, and the place of every value.

Stock PyYAML reads `1e-4` as a string and `off` as false, and lets the last of two equal keys win.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic_core import to_jsonable_python

Path = tuple[str, ...]
"""Keys and list positions from the root, as text: ("losses", "0", "weight")."""
Mark = tuple[int, int]
"""Line and column, from 1."""

_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
_SCALARS = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("int", re.compile(r"[-+]?[0-9]+$|0o[0-7]+$|0x[0-9a-fA-F]+$"), "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
)


class RecipeLoader(yaml.SafeLoader):
    """The core schema of YAML 1.2: no yes/no/on/off, no sexagesimals, no dates, no merge keys."""

    yaml_implicit_resolvers = {}

    nodes = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MOST_NODES:  # before the rest is read, which takes minutes
            raise TooLarge
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


class RecipeDumper(yaml.SafeDumper):
    """Quotes whatever YAML 1.1 or 1.2 would take for something else than a string."""

    yaml_implicit_resolvers = {
        k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_as_json(dumper: yaml.SafeDumper, value: Any) -> yaml.Node:
    """Paths, enums, sets and what else pydantic knows to write."""
    return dumper.represent_data(to_jsonable_python(value))


for _name, _pattern, _first in _SCALARS:
    _tag = f"tag:yaml.org,2002:{_name}"
    RecipeLoader.add_implicit_resolver(_tag, _pattern, list(_first))
    RecipeDumper.add_implicit_resolver(_tag, _pattern, list(_first))
RecipeLoader.add_constructor("tag:yaml.org,2002:int", RecipeLoader.construct_yaml_int)
RecipeDumper.add_representer(set, _represent_as_json)
RecipeDumper.add_multi_representer(object, _represent_as_json)


class YamlError(Exception):
    """The text is no YAML."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.mark = mark


@dataclass
class Document:
    """The value of a text, and the place of each part of it."""

    value: Any = None
    marks: dict[Path, Mark] = field(default_factory=dict)
    """Place of every key and list item; of () the start."""
    problems: list[tuple[Mark, str]] = field(default_factory=list)
    """Doubled keys and the like: what is wrong though the text is YAML."""


def parse(text: str) -> Document:
    """The one document of the text; None is the value of an empty one. Raises `YamlError`."""
    reader = _Reader()
    try:
        loader = RecipeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            reader.document.marks[()] = _mark(node.start_mark)
            reader.document.value = reader.read(loader, node, ())
    except yaml.reader.ReaderError as error:
        lines = text[: error.position].split("\n")
        place = (len(lines), len(lines[-1]) + 1)
        raise YamlError(place, f"a character that YAML forbids: #{error.character}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = _mark(mark) if mark else (1, 1)
        raise YamlError(place, _sentence(error, text, place)) from None
    except RecursionError:
        raise YamlError((1, 1), "nested too deeply") from None
    except TooLarge:
        said = (
            f"more than {MOST_NODES:,} values; aliases within aliases multiply, and many prompts "
            "belong into a file of their own"
        )
        raise YamlError((1, 1), said) from None
    return reader.document


MOST_NODES = 100_000
"""Values that a recipe may have: aliases within aliases would multiply without an end."""


class TooLarge(Exception):
    """The text describes more values than a recipe may have."""


class _Reader:
    """Walks the nodes: builds the value, keeps the places."""

    def __init__(self) -> None:
        self.document = Document()
        self.nodes = 0
        self.open: set[int] = set()

    def read(self, loader: RecipeLoader, node: yaml.Node, path: Path) -> Any:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise TooLarge
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(loader, node)
        plain = "tag:yaml.org,2002:map" if isinstance(node, yaml.MappingNode) else None
        if node.tag not in (plain, "tag:yaml.org,2002:seq"):
            self._problem(node, f"the tag {node.tag} has no meaning in a recipe")
        if id(node) in self.open:
            self._problem(node, "an anchor that contains itself")
            return None
        self.open.add(id(node))
        if isinstance(node, yaml.MappingNode):
            value: Any = self._mapping(loader, node, path)
        else:
            value = []
            for index, item in enumerate(node.value):
                inner = (*path, str(index))
                self.document.marks[inner] = _mark(item.start_mark)
                value.append(self.read(loader, item, inner))
        self.open.remove(id(node))
        return value

    def _mapping(self, loader: RecipeLoader, node: yaml.MappingNode, path: Path) -> dict[Any, Any]:
        value: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._scalar(loader, key_node) if key_node.id == "scalar" else None
            if isinstance(key, bool) or not isinstance(key, str | int):
                self._problem(key_node, "a key should be a name or a whole number")
                continue
            inner = (*path, str(key))
            if inner in self.document.marks:
                first = self.document.marks[inner][0]
                self._problem(key_node, f"{'.'.join(inner)}: a second time; first on line {first}")
                continue
            self.document.marks[inner] = _mark(key_node.start_mark)
            value[key] = self.read(loader, value_node, inner)
        return value

    def _scalar(self, loader: RecipeLoader, node: yaml.ScalarNode) -> Any:
        try:
            return loader.construct_object(node)
        except yaml.constructor.ConstructorError:
            self._problem(node, f"the tag {node.tag} has no meaning in a recipe")
        except ValueError as error:
            self._problem(node, f"{node.value[:40]} can't be read: {error}")
        return None

    def _problem(self, node: yaml.Node, message: str) -> None:
        self.document.problems.append((_mark(node.start_mark), message))


def _mark(mark: Any) -> Mark:
    return mark.line + 1, mark.column + 1


def _sentence(error: yaml.MarkedYAMLError, text: str, place: Mark) -> str:
    """PyYAML's message, or a clearer one for frequent mistakes."""
    lines = text.split("\n")
    line = lines[place[0] - 1] if place[0] <= len(lines) else ""
    if "\t" in line[: place[1]]:
        return "not YAML: a tab; indent with spaces"
    if error.problem == "mapping values are not allowed here":
        return (
            "not YAML: a second ': ' in the line, or wrong indentation; quote text with ': ' in it"
        )
    return "not YAML: " + ", ".join(str(part) for part in (error.context, error.problem) if part)


def dump(value: Any) -> str:
    """YAML in block style, with the innermost lists and mappings in one line each."""
    return yaml.dump(
        value,
        Dumper=RecipeDumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=100,
    )

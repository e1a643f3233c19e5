"""Write the pages of docs/reference/, and the examples in docs/sockets/, from the code.

    .venv/bin/python docs/generate.py

`make docs` runs it; tests/docs/test_pages.py holds the files equal to what it gives.
Parts of other distributions that happen to be installed are left out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from distillkit import cli, examples
from distillkit.configs import SOCKETS, ComponentConfig
from distillkit.recipe import describe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.registry.registry import Entry

DOCS = Path(__file__).parent
NOTE = "<!-- Written by docs/generate.py from the code: change the code, then run `make docs`. -->"

RULES = """\
## Rules across fields

`distillkit check` names the field that breaks one.

- `backbone` and `pool` go together; `refresh` and `warmup.critic` need them.
- `warmup.student` needs `warmup.losses`.
- `samples.cache` needs `samples.count`.
- A loss that compares pictures in pairs, such as `regression`, refuses `samples.noise: fresh`.
- `optim.warmup` has the `bits` of `optim.student`, and `optim.aux` those of `optim.critic`: each
  pair shares an optimizer.
- `run.parallel: fsdp2` refuses `bits: 8`, and students that train a small part of their network.
"""
"""What the models' validators hold; a JSON schema can't say it."""


def pages() -> dict[Path, str]:
    """Every generated file with its text."""
    made = {
        DOCS / "reference" / "recipe.md": recipe_page(),
        DOCS / "reference" / "parts.md": parts_page(),
        DOCS / "reference" / "cli.md": cli_page(),
    }
    return made | {path: with_example(path) for path in sorted((DOCS / "sockets").glob("*.md"))}


# ---------------------------------------------------------------- recipe


class _PartsByName(GenerateJsonSchema):
    """A recipe's schema in which a part is the constant `@SOCKET`, which becomes a link."""

    def function_plain_schema(
        self, schema: core_schema.PlainValidatorFunctionSchema
    ) -> JsonSchemaValue:
        socket = (schema.get("metadata") or {}).get("socket")
        return {"const": f"@{socket}"} if socket else super().function_plain_schema(schema)


def recipe_page() -> str:
    """Every field of a recipe, mapping by mapping."""
    schema = Recipe.model_json_schema(schema_generator=_PartsByName)
    sections = _mappings(schema, schema["$defs"], "")
    anchors = {
        user: "-".join(users).replace(".", "") for users in sections.values() for user in users
    }
    lines = [
        "# Recipe reference",
        NOTE,
        "A recipe is a YAML mapping. A part is a mapping whose `type` is its name; the fields of "
        "every part are on [the next page](parts.md). `--set a.b=c` overrides a field from the "
        "command line, and `distillkit schema` prints all of this for editors.",
        "## Top level",
        _fields_table(schema, schema["$defs"], "", anchors),
    ]
    for owner, users in sections.items():
        node = schema["$defs"][owner]
        lines.append("## " + ", ".join(map(code, users)))
        lines.append(escape(node.get("description", "")))
        lines.append(_fields_table(node, schema["$defs"], f"{users[0]}.", anchors))
    return "\n\n".join([*lines, RULES])


def _mappings(node: Any, defs: Any, prefix: str) -> dict[str, list[str]]:
    """Mappings with fixed fields, by definition -> the fields that take one, as `optim.student`."""
    found: dict[str, list[str]] = {}
    for name, field in node["properties"].items():
        if owner := _owner(field):
            found.setdefault(owner, []).append(prefix + name)
            for inner, users in _mappings(defs[owner], defs, f"{prefix}{name}.").items():
                found.setdefault(inner, []).extend(users)
    return found


def _owner(field: Any) -> str | None:
    """The definition that a field takes, if it is a mapping with fixed fields, or one of those by
    name."""
    by_name = field.get("patternProperties", {}).values()
    options = (field, *field.get("anyOf", ()), *by_name)
    refs = [option["$ref"] for option in options if "$ref" in option]
    return refs[0].rpartition("/")[2] if refs else None


def _fields_table(node: Any, defs: Any, prefix: str, anchors: Mapping[str, str]) -> str:
    required = node.get("required", [])
    rows = []
    for name, field in node["properties"].items():
        kind = escape(describe.kind(field, defs))
        kind = re.sub(r"'@(\w+)'", r"[\1](parts.md#\1)", kind)
        default = code(describe.inline(field.get("default")))
        if _owner(field):
            fields = f"[these fields](#{anchors[prefix + name]})"
            kind = kind.replace("the fields below", fields)
            if "patternProperties" not in field:
                default = "none" if "anyOf" in field else "all defaults"
        default = "required" if name in required else default
        rows.append((code(name), kind, default, escape(field.get("description", ""))))
    return table(HEAD, rows)


HEAD = ("field", "type", "default", "what it is")


# ---------------------------------------------------------------- parts


def parts_page() -> str:
    """Every part that comes with distillkit, socket by socket, with its fields."""
    entries = [e for e in installed().registry.entries() if e.origin.distribution == "distillkit"]
    lines = [
        "# Parts reference",
        NOTE,
        "What comes with distillkit. `distillkit plugins list` shows what is installed, and "
        "`distillkit plugins show NAME` prints one of these tables.",
    ]
    for base in SOCKETS:
        lines += [
            f"## {base.socket}",
            f"{escape(_docstring(base))} [Contract](../sockets/{base.socket}.md).",
        ]
        for entry in entries:
            if entry.socket == base.socket:
                lines += _part(entry)
    return "\n\n".join(lines) + "\n"


def _part(entry: Entry) -> Iterator[str]:
    yield f"### {entry.socket}: {entry.name}"
    yield escape(_docstring(entry.config))
    cards = describe.fields(entry.config)
    rows = [
        (
            code(card.name),
            escape(card.kind),
            card.default if card.default == "required" else code(card.default),
            escape(card.meaning),
        )
        for card in cards
    ]
    yield table(HEAD, rows) if rows else "It has no fields."
    if describe.recipe_field(entry.socket):
        yield f"```yaml\n{describe.snippet(entry.config)}\n```"


def _docstring(config: type[ComponentConfig]) -> str:
    return inspect.cleandoc(config.__doc__ or "")


# ---------------------------------------------------------------- command line


def cli_page() -> str:
    """Every command with its arguments and options, from the Typer application."""
    root = typer.main.get_command(cli.build())
    lines = [
        "# Command line",
        NOTE,
        "What the user can mend ends in one sentence and exit code 2; a run that was stopped by "
        "Ctrl-C or SIGTERM has saved its state and ends with exit code 130. "
        "`DISTILLKIT_DISABLED_PLUGINS=a,b` leaves plugins out.",
        "`torchrun --nproc_per_node N -m distillkit run ...` runs `run` and `precompute` in "
        "several processes.",
    ]
    for words, command in _commands(root, "distillkit"):
        lines += [f"## {words}", f"```\n{_usage(words, command)}\n```", escape(command.help or "")]
        hints = get_type_hints(command.callback)
        if rows := [_parameter(p, hints[p.name]) for p in command.params if p.name != "help"]:
            lines.append(table(("parameter", "type", "default", "what it is"), rows))
    return "\n\n".join(lines) + "\n"


def _commands(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    """Every command but groups, which do nothing by themselves, with the words that call it."""
    inner: Mapping[str, Any] = getattr(command, "commands", {})
    for name, each in inner.items():
        yield from _commands(each, f"{words} {name}")
    if not inner:
        yield words, command


def _usage(words: str, command: Any) -> str:
    """`distillkit sample RUN PROMPT --out PATH [OPTIONS]`."""
    pieces = [words]
    for p in command.params:
        if p.param_type_name == "argument":
            pieces.append(p.name.upper() if p.required else f"[{p.name.upper()}]")
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    pieces += [f"{p.opts[0]} {p.name.upper()}" for p in options if p.required]
    pieces += ["[OPTIONS]"] if any(not p.required for p in options) else []
    return " ".join(pieces)


def _parameter(p: Any, hint: Any) -> tuple[str, str, str, str]:
    """A row of the table. `hint`: the parameter's annotation in the command's function."""
    name = p.name.upper() if p.param_type_name == "argument" else ", ".join(p.opts)
    kinds = [each for each in get_args(hint) or [hint] if each is not type(None)]
    kind = code(p.metavar) if p.metavar else TYPES[kinds[0]]
    shown = p.show_default if isinstance(p.show_default, str) else p.default
    default = "" if shown is None or shown is False else code(str(shown))
    default = "required" if p.required else default
    return code(name), kind, default, escape(p.help or "")


TYPES = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "flag",
    Path: "path",
    list[str]: "text",
}
"""What a parameter's annotation is called."""


# ---------------------------------------------------------------- pages of sockets


def with_example(page: Path) -> str:
    """The page of a socket, whose last Python block is the file of `distillkit.examples`."""
    text = page.read_text(encoding="utf-8")
    source = (Path(examples.__path__[0]) / f"{page.stem}.py").read_text(encoding="utf-8")
    head, fence, rest = text.rpartition("```python\n")
    return head + fence + source + rest[rest.index("```\n") :]


# ---------------------------------------------------------------- Markdown


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; `|` in a cell is escaped."""
    cells = [head, ["---"] * len(head), *rows]
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in cells]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)


def code(text: str) -> str:
    """Text in the font of code."""
    return f"`{text}`" if text else ""


def escape(text: str) -> str:
    """Plain text for Markdown, in one line a paragraph; what stands in backticks stays."""
    parts = " ".join(text.split()).split("`")
    parts[::2] = [re.sub(r"([\\*_\[\]<>])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)


def main() -> None:
    """Write every generated page."""
    for path, text in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

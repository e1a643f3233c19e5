"""`distillkit plugins new`: a plugin as a package of its own, which passes its own tests at once.

Every part is the socket's file of `distillkit.examples` under the new name; the rest of the package
is rendered from `templates/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distillkit.atomic import appearing
from distillkit.errors import UserError, did_you_mean
from distillkit.recipe.load import load_recipe
from distillkit.registry.entry_points import Installed
from distillkit.scaffold.part import BASES, NewPart
from distillkit.scaffold.recipe import replace_fields


def new_plugin(
    name: str, sockets: Sequence[str], recipe: str, out: Path, installed: Installed
) -> Path:
    """Write `distillkit-NAME` in the folder `out`, with a part for each of the sockets.

    `recipe`: name or file of the one that the plugin's recipe starts from. Raises `UserError`;
    nothing is overwritten.
    """
    _check(name, sockets, installed)
    folder = out / f"distillkit-{name}"
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another name, or another --out")
    parts = [NewPart(socket, name) for socket in BASES if socket in sockets]
    with appearing(folder) as temporary:
        for path, text in _files(name, parts, recipe).items():
            file = temporary / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return folder


def _check(name: str, sockets: Sequence[str], installed: Installed) -> None:
    """Raise `UserError` where the name or a socket will not do."""
    for socket in sockets:
        if socket not in BASES:
            guess = did_you_mean(socket, BASES)
            raise UserError(f"--socket {socket}: no such socket;{guess} {', '.join(BASES)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        example = f"my-{sockets[0]}"
        raise UserError(f"{name!r}: a name is small letters, digits and single dashes: {example}")
    for entry in installed.registry.entries():
        if entry.socket in sockets and entry.name == name:
            raise UserError(f"{entry.socket} '{name}' is there already, by {entry.origin}")
    for origin in (*installed.plugins, *installed.disabled, *(b.origin for b in installed.broken)):
        if origin.plugin == name:
            raise UserError(f"'{name}' is the name of {origin}; choose another")
    if name in installed.recipes:
        raise UserError(f"'{name}' is a recipe of {installed.recipes[name].origin}; choose another")
    if find_spec(_package(name)) is not None:
        raise UserError(f"a package {_package(name)} is installed already; choose another name")


def _package(name: str) -> str:
    return f"distillkit_{name.replace('-', '_')}"


def _files(name: str, parts: Sequence[NewPart], recipe: str) -> dict[str, str]:
    """The package's files by path."""
    package, fields = _package(name), [part.field for part in parts if part.field]
    words = {"name": name, "package": package, "parts": parts, "has_recipe": bool(fields)}
    words |= _recipe(parts, recipe) if fields else {"fields": [], "old": []}
    source = f"src/{package}"
    files = {
        "pyproject.toml": _render("pyproject.toml", words),
        "README.md": _render("README.md", words),
        "tests/test_plugin.py": _render("test_plugin.py", words),
        f"{source}/__init__.py": _render("__init__.py", words),
        f"{source}/py.typed": "",
        f"{source}/plugin.py": _render("plugin.py", words),
    }
    files |= {f"{source}/{part.socket}.py": part.source() for part in parts}
    if fields:
        files[f"{source}/recipes/{name}.yaml"] = _render("recipe.yaml", words)
    return files


def _recipe(parts: Sequence[NewPart], start: str) -> dict[str, Any]:
    """What the template of the recipe needs beside the other templates' words."""
    loaded = load_recipe(start)
    fields = [(part, part.field) for part in parts if part.field]
    new = {field: part.line(getattr(loaded.recipe, field)) for part, field in fields}
    whole = [NewPart(socket, start) for socket in BASES]
    built_from_teacher = [part.field for part in whole if part.field and part.takes_teacher]
    return {
        "start": loaded.path.stem,
        "fields": list(new),
        "body": replace_fields(loaded.path.read_text(encoding="utf-8"), new),
        "old": [f for f in built_from_teacher if f not in new and getattr(loaded.recipe, f)],
    }


def _render(template: str, words: Mapping[str, Any]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("distillkit.scaffold"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{template}.j2").render(words)

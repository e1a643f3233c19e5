"""`distillkit plugins new`: a plugin as a package of its own, which passes its own tests at once.

The part is the socket's file of `distillkit.examples` under the new name.
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from string import Template

from distillkit import examples
from distillkit.atomic import appearing
from distillkit.errors import UserError, did_you_mean
from distillkit.registry.entry_points import Installed

PARTS = {
    "prompts": "prompts: {type: shapes, count: 512}",
    "teacher": "teacher: {type: shapes, steps: 4}",
    "student": "student: {type: unet, timestep_shift: 500}",
    "backbone": "backbone: {type: unet-encoder}",
    "pool": "pool: {type: dynamic, width: 32, depth: 1}",
    "refresh": "refresh: {type: random}",
    "loss": "losses: [{type: hinge}]",
    "refinement": "refinement: {type: fixed, iterations: 100}",
    "metrics": "metrics: {type: shapes, pictures: 200}",
}
"""The recipe's other parts, on the embedded world."""
SOCKETS = (*PARTS, "exporter", "layout")
"""Those with an example. The last two are for commands around a run: no recipe names them."""

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.27"]
build-backend = "hatchling.build"

[project]
name = "distillkit-$name"
version = "0.1.0"
description = "A $socket for distillkit: $name."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["distillkit"]

# This line is all that distillkit needs to find the plugin: your name = your module with the hooks.
[project.entry-points.distillkit]
$name = "$package.plugin"

[tool.hatch.build.targets.wheel]
packages = ["src/$package"]
"""

README = """\
# distillkit-$name

A plugin for distillkit with one part: the $socket `$name`.

```
pyproject.toml                    the entry point by which distillkit finds the plugin
src/$package/plugin.py     the hooks, the part's config, and the part
src/$package/recipes/      recipes that run by their name
tests/test_plugin.py              the contract of a $socket
```

## Use it

```
pip install -e .
distillkit plugins show $name --socket $socket
distillkit check $name
distillkit run $name
python -m pytest tests
```

## Make it yours

1. Change the part in `plugin.py`. What it must do stands in `distillkit.contracts`.
2. Give each field of its config a type, a bound and a docstring: `plugins show` prints them.
3. Import torch and what else is heavy inside `build` or below, so that commands stay quick.
4. Fill in the recipe's header: what it trains, what it needs, its figures.
"""

TEST = '''\
"""The $socket keeps its contract, and the plugin what distillkit asks of it."""

from $package.plugin import $config

from distillkit import testing


def test_the_plugin() -> None:
    testing.check_plugin("$package.plugin")


def test_the_contract() -> None:
    testing.check($config())
'''

RUN_TEST = """

def test_a_short_run() -> None:
    testing.check_run($config())
"""

RECIPE = """\
# $name: a $socket of its own, on the embedded shapes world.
#
# Needs   2 CPU cores and 4 GB of memory; no GPU, no download. Minutes: not measured yet.
# Figures not measured yet.
# Run     distillkit run $name
$note
$parts
warmup: {student: 50, losses: [{type: regression}], critic: 20}
optim:
  warmup: {lr: 3.0e-4, betas: [0.9, 0.99], clip: 1.0}
  student: {lr: 2.0e-5}
  critic: {lr: 4.0e-3}
run: {batch: 8, seed: 0}
"""

NOTES = {
    "teacher": """\
#
# The student `unet` and the backbone `unet-encoder` are for SDXL-class teachers. For another one,
# bring parts of its own family, and name them below.
"""
}
"""What a new recipe has to say beside its numbers."""

RECIPES_HOOK = """

@hookimpl
def distillkit_register_recipes() -> list[Path]:
    return [Path(__file__).parent / "recipes"]
"""


def new_plugin(name: str, socket: str, out: Path, installed: Installed) -> Path:
    """Write `distillkit-NAME` in the folder `out`. Raises `UserError`; nothing is overwritten."""
    _check(name, socket, installed)
    folder = out / f"distillkit-{name}"
    if folder.exists():
        raise UserError(f"{folder} is there already; choose another name, or another --out")
    with appearing(folder) as temporary:
        for path, text in _files(name, socket).items():
            file = temporary / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return folder


def _check(name: str, socket: str, installed: Installed) -> None:
    """Say what is wrong with the name or the socket, if anything is."""
    if socket not in SOCKETS:
        guess = did_you_mean(socket, SOCKETS)
        raise UserError(f"--socket {socket}: no example to start from;{guess} {', '.join(SOCKETS)}")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"{name!r}: a name is small letters, digits and single dashes: my-{socket}")
    for entry in installed.registry.entries():
        if (entry.socket, entry.name) == (socket, name):
            raise UserError(f"{socket} '{name}' is there already, by {entry.origin}")
    for origin in (*installed.plugins, *installed.disabled, *(b.origin for b in installed.broken)):
        if origin.plugin == name:
            raise UserError(f"'{name}' is the name of {origin}; choose another")
    if name in installed.recipes:
        raise UserError(f"'{name}' is a recipe of {installed.recipes[name].origin}; choose another")
    if find_spec(_package(name)) is not None:
        raise UserError(f"a package {_package(name)} is installed already; choose another name")


def _package(name: str) -> str:
    return f"distillkit_{name.replace('-', '_')}"


def _files(name: str, socket: str) -> dict[str, str]:
    """The package's files by path."""
    camel = name.title().replace("-", "")
    words = {"name": name, "socket": socket, "package": _package(name)}
    words["config"] = f"{camel}{socket.title()}Config"
    source = f"src/{words['package']}"
    files = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        "tests/test_plugin.py": TEST,
        f"{source}/__init__.py": '"""A plugin for distillkit: the $socket `$name`."""\n',
    }
    if socket in PARTS:
        parts = {**PARTS, socket: PARTS[socket].replace(_type(PARTS[socket]), f"{{type: {name}}}")}
        words["parts"] = "\n".join(parts.values())
        words["note"] = NOTES.get(socket, "")
        files["tests/test_plugin.py"] += RUN_TEST
        files[f"{source}/recipes/{name}.yaml"] = RECIPE
    else:
        lines = README.splitlines(keepends=True)
        files["README.md"] = "".join(line for line in lines if not _of_a_recipe(line))
    texts = {path: Template(text).substitute(words) for path, text in files.items()}
    texts[f"{source}/plugin.py"] = _part(name, camel, socket)
    return texts


def _of_a_recipe(line: str) -> bool:
    return any(words in line for words in ("recipes/", "distillkit check", "distillkit run", "4. "))


def _type(line: str) -> str:
    """`{type: ...}` of a recipe's line, with its other fields."""
    return line[line.index("{") : line.rindex("}") + 1]


def _part(name: str, camel: str, socket: str) -> str:
    """The example of the socket under its new name, with a hook for the recipes."""
    text = (Path(examples.__path__[0]) / f"{socket}.py").read_text(encoding="utf-8")
    text = text.replace("Example", camel).replace('"example"', f'"{name}"')
    if socket not in PARTS:
        return text
    if "from pathlib import Path\n" not in text:
        text = text.replace("from typing import", "from pathlib import Path\nfrom typing import", 1)
    return text + RECIPES_HOOK

"""The core's rooms and the imports between them: no circle, and no more than a reader can hold.

A room is a folder of `distillkit/`, or a module at its root. An arrow leads from a room to one that
it imports from, wherever the import is written: at the top of a file, in a function, or for types
alone. A room's floor is one above the highest room that it imports from; the lowest is floor 1.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import distillkit

PACKAGE = Path(distillkit.__file__).parent
TESTS = Path(__file__).parents[1]
MOST_MODULES, MOST_ARROWS, MOST_FLOORS = 12, 130, 14

Arrows = dict[str, set[str]]
"""Room -> the rooms that it imports from."""


def room_of(module: str) -> str:
    """`distillkit.training.step` is in `training`; `distillkit.errors` is a room of its own."""
    return module.split(".")[1]


def imported(file: Path, root: Path) -> Iterator[str]:
    """Modules below `root` that the file imports, with their full names."""
    name = root.name
    package = [name, *file.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from distillkit import api` names a module, `from distillkit.api import train` none.
            found = (
                [f"{module}.{alias.name}" for alias in node.names] if module == name else [module]
            )
        else:
            continue
        yield from (each for each in found if each.startswith(f"{name}."))


def arrows_of(root: Path) -> Arrows:
    """The arrows between the rooms of a package; what its own `__init__.py` offers is no arrow."""
    arrows: Arrows = {}
    for file in sorted(root.rglob("*.py")):
        if file == root / "__init__.py":
            continue
        room = room_of(".".join([root.name, *file.relative_to(root).with_suffix("").parts]))
        arrows.setdefault(room, set()).update(room_of(each) for each in imported(file, root))
        arrows[room].discard(room)
    return {room: targets & arrows.keys() for room, targets in arrows.items()}


def circle_in(arrows: Mapping[str, set[str]]) -> list[str]:
    """Rooms that import from each other around a circle, or nothing."""
    left = {room: set(targets) for room, targets in arrows.items()}
    while lowest := [room for room, targets in left.items() if not targets & left.keys()]:
        for room in lowest:
            del left[room]
    if not left:
        return []
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return path[path.index(path[-1]) :]


def floors_of(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """Room -> floor, from 1. There must be no circle."""
    floors: dict[str, int] = {}
    while len(floors) < len(arrows):
        for room, targets in arrows.items():
            if targets <= floors.keys():
                floors.setdefault(room, 1 + max((floors[t] for t in targets), default=0))
    return floors


def test_rooms_import_from_each_other_in_no_circle() -> None:
    circle = circle_in(arrows_of(PACKAGE))
    assert not circle, f"a circle of imports: {' -> '.join(circle)}"


def test_no_arrow_goes_up() -> None:
    arrows = arrows_of(PACKAGE)
    floors = floors_of(arrows)
    assert all(floors[room] > floors[t] for room, targets in arrows.items() for t in targets)
    assert max(floors.values()) <= MOST_FLOORS, sorted(floors.items(), key=lambda item: item[1])


def test_there_are_not_too_many_arrows() -> None:
    arrows = arrows_of(PACKAGE)
    assert sum(map(len, arrows.values())) <= MOST_ARROWS, {r: len(t) for r, t in arrows.items()}


@pytest.mark.parametrize("root", [PACKAGE, PACKAGE.parent / "plugins", TESTS], ids=lambda p: p.name)
def test_no_folder_has_too_many_modules(root: Path) -> None:
    files = [file for file in root.rglob("*.py") if file.name != "__init__.py"]
    counts = Counter(file.parent.relative_to(root.parent).as_posix() for file in files)
    assert counts, root
    assert {folder: n for folder, n in counts.items() if n > MOST_MODULES} == {}


FILES = {
    "__init__.py": "from world.attic import up\n",
    "cellar.py": "",
    "hall/__init__.py": "",
    "hall/door.py": "def f():\n    from ..cellar import wine\n",
    "hall/lamp.py": "from .door import f\nimport json\n",
    "attic.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from world import hall\n",
}


def test_arrows_and_floors_by_hand(tmp_path: Path) -> None:
    """attic -> hall -> cellar: in a function, for types alone, relative; and within a room none."""
    for name, text in FILES.items():
        path = tmp_path / "world" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arrows = arrows_of(tmp_path / "world")
    assert arrows == {"cellar": set(), "hall": {"cellar"}, "attic": {"hall"}}
    assert circle_in(arrows) == []
    assert floors_of(arrows) == {"cellar": 1, "hall": 2, "attic": 3}
    (tmp_path / "world" / "cellar.py").write_text("import world.attic\n")
    assert circle_in(arrows_of(tmp_path / "world")) == ["attic", "hall", "cellar", "attic"]


def test_plugins_import_the_root_alone() -> None:
    """The root of `distillkit/` is what a plugin may import; rooms may change between versions."""
    plugins = PACKAGE.parent / "plugins"
    wrong = [
        f"{file.relative_to(plugins)}: {module}"
        for file in sorted(plugins.rglob("*.py"))
        if "tests" not in file.parts
        for module in imports_of_core(file)
        if not (PACKAGE / f"{room_of(module)}.py").is_file()
    ]
    assert not wrong


def imports_of_core(file: Path) -> Iterator[str]:
    """Modules of the core that a plugin's file imports."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("distillkit."):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (name for name in names if name.startswith("distillkit."))

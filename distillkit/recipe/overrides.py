"""A recipe before validation: its value, where each part of it was given, and its problems."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from distillkit.recipe import yaml12
from distillkit.recipe.problems import Problem
from distillkit.recipe.yaml12 import Document, Mark, Path, YamlError

_LAST = 1_000_000_000
"""Past every line of a file."""
DEEPEST = 32
"""Levels of a `--set`; no recipe has a third of them, and some thousands take minutes."""


class Draft:
    """The value of a recipe's file, with `--set` overrides applied to it."""

    def __init__(self, file: FilePath, document: Document) -> None:
        self.file = file
        self.value: dict[Any, Any] = document.value
        self.marks: dict[Path, Mark | str] = dict(document.marks)
        """Where a value was given: in the file, or by which flag."""
        self.problems: list[Problem] = []
        """Problems of values."""
        self.lines = [(mark, f"{place(file, mark)}: {text}") for mark, text in document.problems]
        """Problems of the YAML itself: (order, line of the report)."""

    def override(self, text: str) -> None:
        """Apply one `a.b=c`."""
        key, equals, given = text.partition("=")
        path = tuple(key.strip().split("."))
        flag, message = f"--set {text}", ""
        if not equals or "" in path:
            message = "write --set a.b=c, like --set run.seed=1"
        elif len(path) > DEEPEST:
            flag = f"--set {text[:40]}..."
            message = f"the field has {len(path)} levels, and at most {DEEPEST} are read"
        else:
            try:
                document = yaml12.parse(given)
            except YamlError as error:
                message = str(error)
            else:
                message = document.problems[0][1] if document.problems else ""
                message = message or self._put(path, document.value, flag)
        if message:
            self.lines.append(((_LAST, 0), f"{flag}: {message}"))

    def _put(self, path: Path, value: Any, flag: str) -> str:
        """Put the value at its path; returns what prevents it, or nothing."""
        owner: Any = self.value
        for depth, part in enumerate(path, start=1):
            if isinstance(owner, list):
                if not part.isdecimal() or int(part) >= len(owner):
                    there = f"a list with {len(owner)} items, counted from 0"
                    return f"{'.'.join(path[: depth - 1])} is {there}; there is no {part!r}"
                slot: Any = int(part)
                inner = owner[slot]
            elif isinstance(owner, dict):
                slot = next((key for key in owner if str(key) == part), part)
                inner = owner.get(slot)
            else:
                return f"{'.'.join(path[: depth - 1])} is {owner!r}; it has no fields"
            if depth == len(path) or inner is None:
                inner = value if depth == len(path) else {}
                owner[slot] = inner
                here = path[:depth]
                self.marks = {at: m for at, m in self.marks.items() if at[:depth] != here}
                self.marks[here] = flag
            owner = inner
        return ""

    def report(self, more: Sequence[Problem] = ()) -> list[str]:
        """Every problem, and `more`, as a line, in the order of the file, then of the flags."""
        lines = list(self.lines)
        for problem in (*self.problems, *more):
            # What is missing has no place: its parent's will do.
            path = problem.path
            mark = next(self.marks[up] for up in _upwards(path) if up in self.marks)
            where = f"{'.'.join(path)}: " if path else ""
            order, said = (
                ((_LAST, 0), mark) if isinstance(mark, str) else (mark, place(self.file, mark))
            )
            lines.append((order, f"{said}: {where}{problem.message}"))
        return [line for _, line in sorted(lines, key=lambda line: line[0])]


def _upwards(path: Path) -> list[Path]:
    """The path, its parent, and so on to the root."""
    return [path[:end] for end in range(len(path), -1, -1)]


def place(file: FilePath, mark: Mark) -> str:
    """`my.yaml:7:5`."""
    return f"{file}:{mark[0]}:{mark[1]}"

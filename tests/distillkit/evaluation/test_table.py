"""Metrics as a table: which value is best, in which direction, and how it is shown."""

from __future__ import annotations

import re
from typing import Any

import pytest
from rich.console import Console

from distillkit.evaluation.table import columns_in, extremes, metrics_table, rows_in, show, title

INFO = {
    "distance": {"title": "Distance", "description": "How far.", "better": "lower"},
    "accuracy": {"title": "Accuracy", "description": "How right.", "better": "higher"},
    "detail": {"title": "Detail", "description": "How sharp.", "better": "teacher"},
}


def metrics(column: str, teacher: float | None, *students: float | None) -> dict[str, Any]:
    """One column: the teacher's row, then start, and the student at 1, 2 and 4 steps."""
    keys = ("teacher", "start", "student_1", "student_2", "student_4")
    values = zip(keys, (teacher, *students), strict=False)
    return {key: {column: value, "num_images": 9} for key, value in values} | {"info": INFO}


@pytest.mark.parametrize(
    ("column", "teacher", "students", "best", "worst"),
    [
        # Lower is better; the teacher's 1, which is lower still, does not compete.
        ("distance", 1.0, (9.0, 2.0, 4.0), {"student_1"}, {"start"}),
        # An estimate of a squared distance can fall below zero.
        ("distance", 0.0, (0.2, -0.01, 0.1), {"student_1"}, {"start"}),
        ("accuracy", 0.99, (0.2, 0.8, 0.9), {"student_2"}, {"start"}),
        # Nearer to the teacher's 1: 0.9 is 0.1 away, 1.2 is 0.2 away, 0.7 is 0.3 away.
        ("detail", 1.0, (0.7, 1.2, 0.9), {"student_2"}, {"start"}),
        # The teacher's -0.5: 0 is 0.5 away, -0.6 is 0.1 away, and -2, the lowest, 1.5 away.
        ("detail", -0.5, (-2.0, -0.6, 0.0), {"student_1"}, {"start"}),
        # Equally near from both sides.
        ("detail", 1.0, (0.75, 1.25, 2.0), {"start", "student_1"}, {"student_2"}),
        # Rows without a value do not compete.
        ("distance", 1.0, (9.0, None, 4.0), {"student_2"}, {"start"}),
    ],
)
def test_best_and_worst_in_every_direction(
    column: str, teacher: float, students: tuple[float, ...], best: set[str], worst: set[str]
) -> None:
    assert extremes(metrics(column, teacher, *students), column) == (best, worst)


@pytest.mark.parametrize(
    ("column", "teacher", "students"),
    [
        ("undeclared", 1.0, (2.0, 3.0)),  # it has no direction
        ("distance", 1.0, (2.0, 2.0)),  # all are alike
        ("distance", 1.0, (2.0, None)),  # there is one value
        ("detail", None, (0.5, 0.9)),  # nobody knows the teacher's
    ],
)
def test_where_nobody_is_best(column: str, teacher: float | None, students: Any) -> None:
    assert extremes(metrics(column, teacher, *students), column) == (set(), set())


TABLE = {
    "teacher": {"mine": 1.0, "distance": 1.0, "detail": 1.0, "num_images": 9},
    "start": {"mine": 2.0, "distance": 9.0, "detail": 0.7, "num_images": 9},
    "student_1": {"mine": 3.0, "distance": 2.0, "detail": 1.2, "num_images": 9},
    "student_2": {"mine": 4.0, "distance": None, "detail": 0.9, "num_images": 9},
    "floor_distance": 1.0,
    "info": INFO,
}


def test_columns_stand_in_the_order_of_their_declaration() -> None:
    assert columns_in(TABLE) == ["distance", "detail", "mine"]
    assert [title(TABLE, column) for column in columns_in(TABLE)] == ["Distance", "Detail", "mine"]
    assert list(rows_in(TABLE)) == ["teacher", "start", "student_1", "student_2"]


def test_table_for_the_terminal() -> None:
    console = Console(width=120, force_terminal=False)
    with console.capture() as capture:
        console.print(metrics_table(TABLE))
    lines = capture.get().splitlines()
    assert lines[0].split() == ["Distance", "Detail", "mine"]
    assert lines[3].split() == ["student,", "1", "step", "2.00", "1.20", "3.00"]
    assert lines[4].split() == ["student,", "2", "steps", "–", "0.900", "4.00"]


def test_the_terminals_best_is_green_and_its_worst_red() -> None:
    console = Console(width=120, force_terminal=True, color_system="standard", no_color=False)
    with console.capture() as capture:
        console.print(metrics_table(TABLE))
    coloured = re.findall(r"\x1b\[(1;32|31)m *([\d.]+)", capture.get())
    assert sorted(coloured) == [
        ("1;32", "0.900"),
        ("1;32", "2.00"),
        ("31", "0.700"),
        ("31", "9.00"),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, "–"), (1234.5, "1234"), (12.34, "12.3"), (1.234, "1.23"), (0.987, "0.987")),
        *((0.0123, "0.0123"), (-0.000012, "-0.00001"), (0.0, "0.00000")),
    ],
)
def test_digits(value: float | None, text: str) -> None:
    assert show(value) == text

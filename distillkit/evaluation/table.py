"""Metrics as a table: which rows and columns, how a value is shown, which values are best.

Everything is read from what `metrics.json` holds, the metrics' own titles and directions included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distillkit.evaluation.rows import LABELS

if TYPE_CHECKING:
    from rich.table import Table


def rows_in(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows of `metrics.json`, without what else is in it."""
    return {key: metrics[key] for key in LABELS if key in metrics}


def columns_in(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics of the rows, in the order in which they were declared."""
    found = [name for row in rows_in(metrics).values() for name in row if name != "num_images"]
    declared = [name for name in metrics.get("info", {}) if name in found]
    return list(dict.fromkeys(declared + found))


def first_columns(metrics: Mapping[str, Any]) -> list[str]:
    """The columns of the first table: those that a metric's info does not put into the second."""
    info, columns = metrics.get("info", {}), columns_in(metrics)
    return [name for name in columns if info.get(name, {}).get("main", True)]


def title(metrics: Mapping[str, Any], column: str) -> str:
    """The metric's title, or its name where it declared none."""
    return str(metrics.get("info", {}).get(column, {}).get("title", column))


def extremes(metrics: Mapping[str, Any], column: str) -> tuple[set[str], set[str]]:
    """Keys of the best and the worst rows of a metric; the teacher's row does not compete.

    Two empty sets for a metric that declared no direction, or where all rows are equal.
    """
    rows = rows_in(metrics)
    better = metrics.get("info", {}).get(column, {}).get("better")
    teacher = rows.get("teacher", {}).get(column)
    if better is None or (better == "teacher" and teacher is None):
        return set(), set()
    rest = {key: row[column] for key, row in rows.items() if key != "teacher" and column in row}
    values = {key: value for key, value in rest.items() if value is not None}
    if better == "teacher":
        scores = {key: abs(value - teacher) for key, value in values.items()}
    else:
        sign = 1 if better == "lower" else -1
        scores = {key: sign * value for key, value in values.items()}
    if len(set(scores.values())) < 2:
        return set(), set()
    low, high = min(scores.values()), max(scores.values())
    return {k for k, v in scores.items() if v == low}, {k for k, v in scores.items() if v == high}


def show(value: float | None) -> str:
    """A value with about three significant digits."""
    if value is None:
        return "–"
    size = abs(value)
    digits = next((d for d, least in enumerate((100, 10, 1, 0.1, 0.001)) if size >= least), 5)
    return f"{value:.{digits}f}"


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """The first metrics for the terminal: best of a column in green, worst in red."""
    from rich.table import Table
    from rich.text import Text

    columns = first_columns(metrics)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column in columns:
        table.add_column(title(metrics, column), justify="right")
    marks = {column: extremes(metrics, column) for column in columns}
    for key, row in rows_in(metrics).items():
        cells = [Text(LABELS[key])]
        for column in columns:
            best, worst = marks[column]
            style = "bold green" if key in best else "red" if key in worst else ""
            cells.append(Text(show(row.get(column)), style))
        table.add_row(*cells)
    return table


ARROWS = {"lower": " (↓)", "higher": " (↑)", "teacher": " (≈ teacher)"}


def heading(metrics: Mapping[str, Any], column: str) -> str:
    """A metric's title with the direction in which it is better."""
    better = metrics.get("info", {}).get(column, {}).get("better")
    return title(metrics, column) + ARROWS.get(better, "")


def markdown_table(metrics: Mapping[str, Any]) -> str:
    """The metrics in the shape of the paper's Table 1: model, steps, a column a metric; the best of
    a column is bold."""
    columns = first_columns(metrics)
    return markdown(markdown_heads(metrics, columns), markdown_rows(metrics, columns))


def markdown_heads(metrics: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """Of `markdown_rows`."""
    return ["Model", "Steps", *(heading(metrics, column) for column in columns)]


def markdown_rows(
    metrics: Mapping[str, Any],
    columns: Sequence[str],
    cell: Callable[[str, str], str] | None = None,
) -> list[list[str]]:
    """Cells of every row. `cell(row, column)` is another text than the value's own."""
    marks = {column: extremes(metrics, column)[0] for column in columns}
    lines = []
    for key, row in rows_in(metrics).items():
        shown = {c: cell(key, c) if cell is not None else show(row.get(c)) for c in columns}
        cells = [f"**{shown[c]}**" if key in marks[c] else shown[c] for c in columns]
        lines.append([LABELS[key].partition(",")[0], steps_of(metrics, key), *cells])
    return lines


def steps_of(metrics: Mapping[str, Any], key: str) -> str:
    """How many steps a row was drawn in: as the metrics say, or as the row's label does."""
    said = metrics.get("made_with", {}).get("steps", {}).get(key)
    return str(said or LABELS[key].partition(", ")[2].partition(" ")[0] or "–")


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, [":---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

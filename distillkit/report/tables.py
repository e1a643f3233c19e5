"""Runs as tables in Markdown: the form of those on the page of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distillkit.evaluation import table
from distillkit.report.compare import Group, Line, cells
from distillkit.report.compare_notes import notes


def markdown_tables(
    groups: Sequence[Group], lines: Sequence[Line], metrics: Sequence[str] | None = None
) -> str:
    """The metrics of every group, row by row; what is left of the start's distance above the
    floor; and, of several groups, their differences from the first.

    A group of several runs shows means, with the lowest and the highest of its runs. `lines`: the
    rows and differences to show. `metrics`: None takes the first columns.
    """
    first = groups[0].runs[0].metrics
    columns = list(dict.fromkeys(metrics or table.first_columns(first)))
    shown = list(dict.fromkeys(line.row for line in lines))
    several = len(groups) > 1
    rows = [
        [each.name, *row] if several else row
        for each in groups
        for row in _rows(each, shown, columns)
    ]
    heads = [*(["Run"] if several else []), *table.markdown_heads(first, columns)]
    parts = [table.markdown(heads, rows), *_excess(groups)]
    if several:
        differences = [line for line in lines if line.metric in columns]
        parts.append(table.markdown(*cells(groups, differences)))
        parts += [f"{sentence}\n" for sentence in notes(groups, differences)]
    return "\n".join(parts)


def _rows(group: Group, keys: Sequence[str], columns: Sequence[str]) -> list[list[str]]:
    """A group's, from the means of its runs."""
    first = group.runs[0].metrics
    means: dict[str, Any] = {
        key: {column: group.mean(key, column) for column in columns} for key in keys
    }
    # Metrics of earlier versions do not tell the teacher's steps; the recipe does.
    own = group.runs[0].recipe.get("teacher") or {}
    steps = {"teacher": own.get("steps")} | first.get("made_with", {}).get("steps", {})
    means |= {"info": first.get("info", {}), "made_with": {"steps": steps}}

    def cell(key: str, column: str) -> str:
        return spread([run.metrics[key].get(column) for run in group.runs])

    return table.markdown_rows(means, columns, cell)


def _excess(groups: Sequence[Group]) -> Iterator[str]:
    """A sentence for each group whose runs all have it."""
    for each in groups:
        found = [run.metrics.get("summary", {}).get("excess_ratio") for run in each.runs]
        if None not in found:
            yield (
                f"{each.name}: at one step {spread(found)} of the start's distance above the "
                "floor is left.\n"
            )


def spread(values: Sequence[float | None]) -> str:
    """The mean, and of several values the lowest and the highest: `0.15 (0.10 to 0.20)`."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return table.show(None)
    mean = table.show(sum(known) / len(known))
    if len(known) == 1:
        return mean
    return f"{mean} ({table.show(min(known))} to {table.show(max(known))})"

"""`distillkit compare RUN RUN ...`: one table with intervals, one page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillkit.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from distillkit.report.compare import Group, Line


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Runs, or folders that `eval` wrote; at least two.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    metrics: Annotated[
        str, typer.Option(help="Metrics to show, separated by commas.", show_default="all")
    ] = "",
    rows: Annotated[
        str, typer.Option(help="Rows to show, such as student_1.", show_default="all")
    ] = "",
) -> None:
    """Compare runs, paired over seeds and prompts, with bootstrap intervals.

    Runs of one recipe with different seeds are one group; every group is compared with the first.
    """
    if len(runs) < 2:
        raise UserError("compare: name at least two runs")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page's name ends in .html")

    from distillkit.cli.terminal.console import console
    from distillkit.report.compare import compare as compared
    from distillkit.report.compare import group, read_judged, write_page

    groups = group([read_judged(run) for run in runs])
    lines = _chosen(compared(groups), metrics, rows)
    console().print(_table(groups, lines))
    console().print(f"\nPage  {write_page(groups, lines, out)}")


def _chosen(lines: Sequence[Line], metrics: str, rows: str) -> list[Line]:
    """The lines that were asked for; raises `UserError` for names that no line has."""
    kept = list(lines)
    for flag, text, of in (("metrics", metrics, "metric"), ("rows", rows, "row")):
        wanted = [word.strip() for word in text.split(",") if word.strip()]
        there = list(dict.fromkeys(getattr(line, of) for line in lines))
        for word in wanted:
            if word not in there:
                raise UserError(f"--{flag} {word}: these runs share {', '.join(there) or 'none'}")
        kept = [line for line in kept if not wanted or getattr(line, of) in wanted]
    if not kept:
        raise UserError("compare: these runs share no metric of any row")
    return kept


def _table(groups: Sequence[Group], lines: Sequence[Line]) -> Table:
    from rich.table import Table

    from distillkit.evaluation.rows import LABELS
    from distillkit.evaluation.table import show

    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("", "", *(each.name for each in groups)):
        table.add_column(head)
    for each in groups[1:]:
        table.add_column(f"{each.name} - {groups[0].name}")
    before = ""
    for line in lines:
        label = LABELS[line.row] if line.row != before else ""
        before = line.row
        means = [show(mean) for mean in line.means]
        table.add_row(label, line.title, *means, *map(line.verdict, line.differences))
    return table

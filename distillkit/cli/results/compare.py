"""`distillkit compare RUN RUN ...`: one table with intervals, one page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from distillkit.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from distillkit.report.compare import Group, Line


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs, or folders that `eval` wrote.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    metrics: Annotated[
        str, typer.Option(help="Metrics to show, separated by commas.", show_default="all")
    ] = "",
    rows: Annotated[
        str, typer.Option(help="Rows to show, such as student_1.", show_default="all")
    ] = "",
    format: Annotated[
        Literal["table", "markdown"],
        typer.Option(
            metavar="table|markdown",
            help="markdown prints tables for a page, of one run too, and writes none.",
        ),
    ] = "table",
) -> None:
    """Compare runs, paired over seeds and prompts, with 95 % intervals.

    Runs of one recipe with different seeds are one group; every group is compared with the first.
    """
    if len(runs) < 2 and format == "table":
        raise UserError("compare: name at least two runs")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: the page's name ends in .html")

    from distillkit.cli.terminal.console import console
    from distillkit.report import compare as of
    from distillkit.report.compare_notes import notes
    from distillkit.report.tables import markdown_tables

    judged = [of.read_judged(run) for run in runs]
    groups = of.group(judged, together=format == "markdown")
    lines = _chosen(of.compare(groups), metrics, rows)
    if format == "markdown":
        chosen = [line.metric for line in lines] if metrics else None
        print(markdown_tables(groups, lines, chosen), end="")
        return
    console().print(_table(groups, lines))
    said = notes(groups, lines)
    for sentence in said:
        console().print(f"\n{sentence}")
    console().print(f"\nPage  {of.write_page(groups, lines, said, out)}")


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

    from distillkit.report.compare import cells

    table = Table(box=None, pad_edge=False, header_style="bold")
    heads, texts = cells(groups, lines)
    for head in heads:
        table.add_column(head)
    for text in texts:
        table.add_row(*text)
    return table

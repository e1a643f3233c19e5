"""Rows as aligned columns: what the `list` commands print."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from distillkit.cli.terminal.console import console

UNWRAPPED = 10_000
"""Characters of a line in a pipe: `grep` finds whole rows."""


def show(head: Sequence[str], *rows: Sequence[str]) -> None:
    """Print the rows under their head, wrapped to the width of the terminal."""
    table = Table(*head, box=None, pad_edge=False, header_style="")
    for row in rows:
        table.add_row(*row)
    console(pipe_width=UNWRAPPED).print(table)

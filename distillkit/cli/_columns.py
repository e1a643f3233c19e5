"""Rows as aligned lines. Lists print these: rich's tables would take a fifth of their time."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from textwrap import wrap

LEAST = 20
"""Characters that the widest column keeps in the narrowest terminal."""


def show(*rows: Sequence[str]) -> None:
    """Print the rows, as wide as the terminal, and never broken in a pipe."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    print(*columns(rows, width), sep="\n")


def columns(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Lines of at most `width` characters; the widest column is wrapped to make room."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widest = widths.index(max(widths))
    beside = sum(widths) - widths[widest] + 2 * (len(widths) - 1)
    widths[widest] = min(widths[widest], max(LEAST, width - beside))
    for row in rows:
        cells = [wrap(cell, room) for cell, room in zip(row, widths, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = [part.ljust(room) for part, room in zip(parts, widths, strict=True)]
            yield "  ".join(padded).rstrip()

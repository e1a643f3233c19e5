"""Where commands print: plain text, as wide as the terminal, and never cut in a pipe."""

from __future__ import annotations

from rich.console import Console


def console(pipe_width: int = 200) -> Console:
    """For output without markup; `pipe_width`: characters of a line outside a terminal."""
    out = Console(markup=False, highlight=False)
    return out if out.is_terminal else Console(markup=False, highlight=False, width=pipe_width)

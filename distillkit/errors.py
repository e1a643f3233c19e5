"""Errors that the user can mend: a sentence, without a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """Something the user can mend; the message is the whole story. The CLI exits with code 2."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`did you mean 'random'?` after a space, or nothing where no option is near."""
    options = list(options)
    by_lower = {option.lower(): option for option in options}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" did you mean '{by_lower[near[0]]}'?" if near else ""

"""Errors that the user can mend, and notices: a sentence, without a traceback."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any


class UserError(Exception):
    """Something the user can mend; the message is the whole story. The CLI exits with code 2."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """`did you mean 'random'?` after a space, or nothing where no option is near."""
    options = list(options)
    by_lower = {option.lower(): option for option in options}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" did you mean '{by_lower[near[0]]}'?" if near else ""


class Notice(UserWarning):
    """What a part tells of itself while it is built, by `warnings.warn(text, Notice)`: a run prints
    it, and goes on. What a config knows is said by `preflight`, before weights are read."""


@contextmanager
def notices(tell: Callable[[str], None]) -> Iterator[None]:
    """Inside, notices are told; other warnings are shown as ever."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", Notice)
        show = warnings.showwarning

        def shown(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
            if issubclass(category, Notice):
                tell(str(message))
            else:
                show(message, category, *where, **how)

        warnings.showwarning = shown
        yield

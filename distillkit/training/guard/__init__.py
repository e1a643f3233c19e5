"""What parts return is checked once, at its first use; what they raise becomes one sentence.

A check that passed is not repeated, so that it costs nothing afterwards.

`returns` says what is wrong with a value; `calls` looks at every call of a part's.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from distillkit.errors import UserError


class PartError(UserError):
    """A part broke its contract; the message names the part, its package and the rule."""


class Guard:
    """Turns what goes wrong inside one part into a sentence that names it.

    with guard("draw()"):
        panel = pool.draw(...)
    """

    def __init__(self, label: str) -> None:
        """`label`: the part and who brought it, such as "pool 'x' of plugin 'y' (z 1.0)"."""
        self.label = label
        self._checked: set[str] = set()

    @contextmanager
    def __call__(self, call: str) -> Iterator[None]:
        """Inside, an exception other than `UserError` is raised as `PartError`.

        `sys.exit` is one too: it would end the run as if all had gone well.
        """
        try:
            yield
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            said = " ".join(f"{type(error).__name__}: {error} ({place_of(error)})".split())
            raise PartError(f"{self.label} failed in {call}: {said}") from error

    def once(self, call: str, flaw: Callable[[], str | None]) -> None:
        """`check`, the first time it is asked for `call`."""
        if call not in self._checked:
            self.check(call, flaw)
            self._checked.add(call)

    def check(self, call: str, flaw: Callable[[], str | None]) -> None:
        """Raise `PartError` where `flaw()` returns what is wrong with the result of `call`."""
        with self(call):
            found = flaw()
        if found:
            raise PartError(f"{self.label} breaks its contract: {call} {found}")


def place_of(error: BaseException) -> str:
    """The innermost line in the folder of the part, whose call is the first that is neither in the
    core (of which `distillkit.examples` are parts) nor in torch."""
    core, torchs = Path(__file__).parents[2], Path(torch.__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    folders = [Path(frame.filename).parent for frame in frames]
    own = [
        folder
        for folder in folders
        if folder == core / "examples" or not {core, torchs} & {folder, *folder.parents}
    ]
    parts = [f for f, folder in zip(frames, folders, strict=True) if own and folder == own[0]]
    frame = parts[-1] if parts else frames[-1]
    return f"{frame.filename}:{frame.lineno}"

"""The recipe of a new plugin: an installed one with the new parts in place of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

from distillkit.recipe import yaml12


def replace_fields(text: str, fields: Mapping[str, str]) -> str:
    """The recipe without its header, with `fields` (name -> its lines) in place of its own.

    Comments of other fields stay. A field that the recipe does not have comes last.
    """
    lines = text.splitlines()
    marks = yaml12.parse(text).marks
    starts = {path[0]: line - 1 for path, (line, _) in marks.items() if len(path) == 1}
    ends = [*list(starts.values())[1:], len(lines)]
    kept: list[str] = []
    for (name, start), end in zip(starts.items(), ends, strict=True):
        block = lines[start:end]
        kept += [fields[name], *_after(block)] if name in fields else block
    kept += [line for name, line in fields.items() if name not in starts]
    return "\n".join(kept).rstrip()


def _after(block: Sequence[str]) -> Sequence[str]:
    """The blank lines and comments below a field, which belong to the next one."""
    below = takewhile(lambda line: not line.strip() or line.startswith("#"), reversed(block))
    return block[len(block) - len(list(below)) :]

"""Which of a source's prompts are kept: by length, by pattern, each once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from distillkit.configs import PromptsConfig
from distillkit.errors import UserError
from distillkit.remarks import Remark, without_pictures


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}; got {pattern!r}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression, as Python's `re` reads it."""


def missing_path(path: str, field: str = "path") -> Iterable[Remark]:
    """For `preflight`: a file or folder that is not there."""
    if not Path(path).exists():
        yield Remark(
            f"there is no {path} here (the working directory is {Path.cwd()}): put it there, or "
            f"name another with `--set prompts.{field}=...`",
            field,
        )


class FilteredPrompts(PromptsConfig):
    """Fields that sources of many prompts share: which prompts are kept, in the source's order."""

    min_length: int = Field(1, ge=1)
    """Fewest characters of a prompt that is kept."""
    max_length: int | None = Field(None, ge=1)
    """Most characters of a prompt that is kept; none sets no end."""
    include: Pattern | None = None
    """Regular expression: only prompts in which it is found are kept. `(?i)` ignores case."""
    exclude: Pattern | None = None
    """Regular expression: prompts in which it is found are left out."""
    unique: bool = False
    """Keep equal prompts once, where they come first."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        return without_pictures(self, recipe)

    def filter(self, prompts: Iterable[str], source: str) -> list[str]:
        """What is kept of them. Raises `UserError`, which names `source`, where nothing is."""
        given = list(prompts)
        if not given:
            raise UserError(f"{source}: holds no prompts")
        kept = [prompt for prompt in given if self._passes(prompt)]
        if not kept:
            asked = self.model_dump(
                include=set(FilteredPrompts.model_fields), exclude_defaults=True
            )
            fields = ", ".join(f"{field}: {value}" for field, value in asked.items())
            raise UserError(f"{source}: none of its {len(given)} prompts is kept by {fields}")
        return list(dict.fromkeys(kept)) if self.unique else kept

    def _passes(self, prompt: str) -> bool:
        return (
            self.min_length <= len(prompt)
            and (self.max_length is None or len(prompt) <= self.max_length)
            and (self.include is None or re.search(self.include, prompt) is not None)
            and (self.exclude is None or re.search(self.exclude, prompt) is None)
        )

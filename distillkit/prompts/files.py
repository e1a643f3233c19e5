"""Prompt sources that need nothing but a file: `list`, `text`, `jsonl`.

A source is any sequence of strings; order, sharding and resuming belong to `samples.order`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from distillkit.configs import PromptsConfig
from distillkit.errors import UserError
from distillkit.prompts.filter import FilteredPrompts, missing_path
from distillkit.remarks import Remark, without_pictures

if TYPE_CHECKING:
    from distillkit.contracts import PromptSource

TABLES = (".csv", ".tsv")
"""Ends of names of files that are no prompts a line."""
Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class ListPrompts(PromptsConfig):
    """Prompts written in the recipe."""

    type: Literal["list"] = "list"
    prompts: list[Prompt] = Field(min_length=1, examples=[["a red fox", "a blue boat"]])
    """The prompts."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        return without_pictures(self, recipe)

    def build(self) -> PromptSource:
        return self.prompts


class TextPrompts(FilteredPrompts):
    """A text file with one prompt a line."""

    type: Literal["text"] = "text"
    path: str = Field(examples=["prompts.txt"])
    """The file, UTF-8; relative to the working directory. Blank lines are skipped."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        yield from missing_path(self.path)
        if Path(self.path).suffix.lower() in TABLES:
            yield Remark(
                f"{self.path} is a table, whose head and quotes would become prompts: write the "
                "prompts into a .txt file, one a line, or read a column of the table's folder by "
                "`{type: dataset, source: FOLDER, column: NAME}`",
                "path",
            )
        yield from _no_prompts(self.path)

    def build(self) -> PromptSource:
        return self.filter((line for _, line in _lines(self.path)), self.path)


class JsonlPrompts(FilteredPrompts):
    """A file with one JSON object a line, of which one field is the prompt."""

    type: Literal["jsonl"] = "jsonl"
    path: str = Field(examples=["prompts.jsonl"])
    """The file, UTF-8; relative to the working directory. Blank lines are skipped."""
    field: str = "prompt"
    """The field that holds the prompt."""

    def preflight(self, recipe: Any) -> Iterable[Remark]:
        yield from super().preflight(recipe)
        yield from missing_path(self.path)
        yield from _no_prompts(self.path)

    def build(self) -> PromptSource:
        prompts = (self._prompt(number, line) for number, line in _lines(self.path))
        return self.filter(prompts, self.path)

    def _prompt(self, number: int, line: str) -> str:
        where = f"{self.path}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not a line of JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object with a field '{self.field}'")
        if self.field not in row:
            fields = ", ".join(row) or "none"
            raise UserError(
                f"{where}: no field '{self.field}'; fields: {fields}. Name the one that holds the "
                "prompt: `field` of a recipe's prompts, --field of `distillkit eval`"
            )
        prompt = row[self.field]
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"{where}: field '{self.field}' should be a prompt, not {prompt!r}")
        return prompt.strip()


def _no_prompts(path: str) -> Iterable[Remark]:
    """For `preflight`: a file that is there, without prompts or unreadable. It is read as far as
    its first prompt; a pipe, which can be read once, is not."""
    place = Path(path)
    if not place.exists() or place.is_fifo():
        return
    try:
        if next(_lines(path), None) is None:
            yield Remark(f"{path} holds no prompts: write one a line into it", "path")
    except UserError as error:
        yield Remark(str(error), "path")


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not a text file in UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: can't read the prompts: {reason}") from None

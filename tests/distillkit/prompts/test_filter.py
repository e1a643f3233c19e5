"""Which prompts of a source are kept: by length, by pattern, each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from distillkit.errors import UserError
from distillkit.prompts.files import JsonlPrompts, TextPrompts
from distillkit.prompts.tables import ParquetPrompts

LINES = ["a cat", "a Cat", "a cat on a mat", "a dog", "a cat"]


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({}, LINES),
        ({"min_length": 6}, ["a cat on a mat"]),
        ({"max_length": 5, "unique": True}, ["a cat", "a Cat", "a dog"]),
        ({"include": "cat$"}, ["a cat", "a cat"]),
        ({"exclude": "(?i)cat"}, ["a dog"]),
        ({"include": "a", "exclude": "mat|dog", "unique": True}, ["a cat", "a Cat"]),
    ],
)
def test_what_is_kept_of_every_source_of_a_file(
    fields: dict[str, Any], kept: list[str], tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("\n".join(LINES))
    (tmp_path / "p.jsonl").write_text("\n".join(f'{{"prompt": "{line}"}}' for line in LINES))
    assert list(TextPrompts(path=str(tmp_path / "p.txt"), **fields).build()) == kept
    assert list(JsonlPrompts(path=str(tmp_path / "p.jsonl"), **fields).build()) == kept


def test_tables_are_filtered_alike(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"prompt": LINES})
    parquet.write_table(table, tmp_path / "p.parquet")
    prompts = ParquetPrompts(path=str(tmp_path / "p.parquet"), include="a", exclude="mat|dog")
    assert list(prompts.build()) == ["a cat", "a Cat", "a cat"]


def test_a_filter_that_keeps_nothing_is_told(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    with pytest.raises(UserError) as caught:
        TextPrompts(path=str(tmp_path / "p.txt"), min_length=9, include="ox").build()
    said = "none of its 2 prompts is kept by min_length: 9, include: ox"
    assert str(caught.value) == f"{tmp_path / 'p.txt'}: {said}"


def test_a_pattern_that_is_none_is_told() -> None:
    with pytest.raises(ValidationError, match=r"not a regular expression: .*; got 'a\(cat'"):
        TextPrompts(path="x", include="a(cat")

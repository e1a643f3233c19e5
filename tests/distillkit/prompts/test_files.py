"""Prompt files: what is read, and what is said of files that can't be."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.errors import UserError
from distillkit.prompts.files import JsonlPrompts, TextPrompts


def write(folder: Path, content: str | bytes) -> str:
    file = folder / "prompts"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def test_text_has_one_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeffa cat\r\n\n  a dog \nnaïve \u2028 café")
    assert list(TextPrompts(path=path).build()) == ["a cat", "a dog", "naïve \u2028 café"]


def test_jsonl_takes_one_field_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, '{"caption": " a cat ", "id": 1}\n\n{"caption": "a dog"}\n')
    assert list(JsonlPrompts(path=path, field="caption").build()) == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", ": holds no prompts"),
        ("\n \n", ": holds no prompts"),
        (b"\xff\xfe", ": not a text file in UTF-8"),
        ('{"prompt": "a"}\n{"prompt": ', ":2: not a line of JSON: "),
        ('\n"a cat"', ":2: expected a JSON object with a field 'prompt'"),
        ('{"text": "a", "id": 1}', ":1: no field 'prompt'; fields: text, id"),
        ('{"prompt": 5}', ":1: field 'prompt' should be a prompt, not 5"),
        ('{"prompt": " "}', ":1: field 'prompt' should be a prompt, not ' '"),
    ],
)
def test_a_broken_file_gets_a_sentence(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        JsonlPrompts(path=path).build()
    assert str(caught.value).startswith(path + message)


def test_a_missing_file_gets_a_sentence() -> None:
    with pytest.raises(UserError, match=r"^nowhere\.txt: can't read the prompts: No such file"):
        TextPrompts(path="nowhere.txt").build()

"""Prompt files: what is read, and what is said of files that can't be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from distillkit.errors import UserError
from distillkit.prompts.files import JsonlPrompts, TextPrompts
from tests.distillkit.world import world_recipe


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
        (
            '{"text": "a", "id": 1}',
            ":1: no field 'prompt'; fields: text, id. Name the one that holds the prompt: `field` "
            "of a recipe's prompts, --field of `distillkit eval`",
        ),
        ('{"prompt": 5}', ":1: field 'prompt' should be a prompt, not 5"),
        ('{"prompt": " "}', ":1: field 'prompt' should be a prompt, not ' '"),
    ],
)
def test_a_broken_file_gets_a_sentence(content: str | bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UserError) as caught:
        JsonlPrompts(path=path).build()
    assert str(caught.value).startswith(path + message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", "p.txt holds no prompts: write one a line into it"),
        ("p.jsonl", b"\n \n", "p.jsonl holds no prompts: write one a line into it"),
        ("p.txt", b"\xff\xfe", "p.txt: not a text file in UTF-8"),
        ("p.CSV", b"prompt\n'a cat'\n", "p.CSV is a table, whose head and quotes would become pro"),
        ("p.tsv", b"prompt\n'a cat'\n", "by `{type: dataset, source: FOLDER, column: NAME}`"),
        ("p.txt", b"\na cat\n", None),
    ],
)
def test_a_check_says_what_a_run_would_stop_at(
    name: str, content: bytes, message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    config = (JsonlPrompts if name == "p.jsonl" else TextPrompts)(path=name)
    remarks = list(config.preflight(world_recipe()))
    assert [remark.field for remark in remarks] == ["path"] * (message is not None)
    assert all(remark.is_error and str(message) in remark.message for remark in remarks)


def test_a_pipe_is_left_for_the_run(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert list(TextPrompts(path=str(tmp_path / "pipe")).preflight(world_recipe())) == []


def test_a_missing_file_gets_a_sentence() -> None:
    with pytest.raises(UserError, match=r"^nowhere\.txt: can't read the prompts: No such file"):
        TextPrompts(path="nowhere.txt").build()

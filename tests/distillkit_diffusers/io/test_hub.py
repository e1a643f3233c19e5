"""Where a recipe's files come from: the disk, the hub, the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import UserError
from distillkit_diffusers.io.hub import Asset, locate


@pytest.mark.parametrize(
    ("spec", "kind", "on_hub"),
    [
        ("owner/repo", "pipeline", True),
        ("owner/repo/x.safetensors", "file", True),
        ("owner/repo/sub/x.safetensors", "file", True),
        ("owner/repo", "file", False),
        ("owner/repo/sub", "pipeline", False),
        ("./owner/repo", "file", False),
        ("~/repo", "pipeline", False),
        ("/owner/repo", "file", False),
        ("repo", "pipeline", False),
    ],
)
def test_hub_ids_have_two_parts_and_files_more(spec: str, kind: Any, on_hub: bool) -> None:
    assert Asset("teacher.model", spec, kind).on_hub is on_hub


def test_a_path_that_exists_is_taken_before_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner/repo").mkdir(parents=True)
    assert locate([Asset("teacher.model", "owner/repo", "pipeline")]) == [Path("owner/repo")]


@pytest.mark.usefixtures("no_hub")
def test_one_missing_file_is_named_with_its_command() -> None:
    with pytest.raises(UserError) as error:
        locate([Asset("base", "owner/repo/x.safetensors", "file")])
    assert str(error.value).splitlines() == [
        "1 file is missing. Download what is listed on a machine with a network, copy it to the "
        "path in the --set option below it, and run again with that option:",
        "  base: 'owner/repo/x.safetensors' is not on this machine, and the hub does not answer",
        "    hf download owner/repo x.safetensors --local-dir models/repo",
        "    --set base=models/repo/x.safetensors",
    ]


def test_no_answer_of_the_hub_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", _only_from_the_cache)
    with pytest.raises(UserError, match="the hub does not answer"):
        locate([Asset("teacher.lora", "owner/repo/x.safetensors", "file")])


def _only_from_the_cache(repo: str, name: str, local_files_only: bool) -> str:
    assert local_files_only
    raise FileNotFoundError(name)

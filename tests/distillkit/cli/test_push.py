"""`distillkit export ... --push`: what goes up, from a run of the examples, without a network."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from distillkit import testing
from distillkit.atomic import save_tensors
from distillkit.recipe.load import dump_recipe
from distillkit.runs.folder import RunFolder
from distillkit.training.build import build_models
from tests.distillkit.launch import command

pytestmark = pytest.mark.usefixtures("examples_installed", "no_network")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("touched the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    recipe, folder = testing.recipe(), RunFolder(tmp_path / "run")
    folder.create(dump_recipe(recipe), {}, 1)
    save_tensors(
        folder.snapshot("mixed"), dict(build_models(recipe).network.module.named_parameters())
    )
    return folder.path


class Hub:
    """In the place of `HfApi`: remembers what it is asked for."""

    def __init__(self, wrong: Exception | None = None) -> None:
        self.wrong = wrong
        self.asked: list[Any] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.asked.append((repo_id, options))
        if self.wrong is not None:
            raise self.wrong
        return huggingface_hub.RepoUrl(f"https://huggingface.co/{repo_id}")

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> None:
        self.asked.append((repo_id, commit_message))
        self.files |= {o.path_in_repo: Path(o.path_or_fileobj).read_bytes() for o in operations}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    return made


def export(run: Path, *options: Any, code: int = 0) -> None:
    assert command("export", run, "--to", "example", *options) == code


def test_a_dry_run_lists_what_would_go_up(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs neither a token nor a licence, and says that there is none."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    export(run, "--push", "me/mine", "--dry-run")
    said = capsys.readouterr().out
    listed = re.findall(r"^ +(\S+ \S+)  (\S+)$", said, re.M)
    assert [name for _, name in listed] == [
        "student-example.safetensors", "README.md", "recipe.yaml",
    ]  # fmt: skip
    size = (run / "exports" / "student-example.safetensors").stat().st_size
    assert listed[0][0] == f"{size} bytes"
    assert re.search(r"in all, 3 files$", said, re.M)
    assert "The card names no licence: give one with --license" in said
    assert "A dry run: nothing was uploaded." in said
    assert not hub.asked


def test_a_push_is_one_commit_of_the_export_and_its_card(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "exports").mkdir()
    (run / "exports" / "student-other.safetensors").write_bytes(b"of another export")
    (run / "exports" / "student-example.json").write_text("beside the file")
    export(run, "--push", "me/mine", "--private", "--license", "mit")
    assert hub.asked == [
        ("me/mine", {"private": True, "exist_ok": True}),
        ("me/mine", "Upload a student by distillkit"),
    ]
    assert hub.files.keys() == {
        *("student-example.safetensors", "student-example.json", "README.md", "recipe.yaml"),
    }
    written = (run / "exports" / "student-example.safetensors").read_bytes()
    assert hub.files["student-example.safetensors"] == written
    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.to_dict()["license"] == "mit"
    assert card.text.lstrip().startswith("# mine\n")
    assert "\n- 2 tensors in float16; timestep shift 500\n" in card.text
    assert "https://huggingface.co/me/mine" in capsys.readouterr().out


def test_without_a_licence_nothing_is_shared(
    run: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, "--push", "me/mine", code=2)
    assert "name the one you share it under: --license ID" in capsys.readouterr().err
    assert not hub.asked


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--push", "mine"], "--push mine: write owner/name, as on the hub"),
        (["--push", "me/my model"], "--push me/my model: "),
        (["--dry-run"], "--dry-run is for --push OWNER/NAME"),
        (["--private"], "--private is for --push OWNER/NAME"),
    ],
)
def test_what_is_refused_before_anything_is_exported(
    run: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    export(run, *options, code=2)
    assert said in capsys.readouterr().err
    assert not (run / "exports").exists()


def test_without_a_token_or_a_network_a_sentence_says_what_to_do(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ConnectionError("Name or service not known\nand more")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(wrong))
    export(run, "--push", "me/mine", "--license", "mit", code=2)
    error = capsys.readouterr().err
    assert "the hub could not be reached, or refused: Name or service not known." in error
    assert "and more" not in error
    assert (run / "exports" / "student-example.safetensors").exists()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    export(run, "--push", "me/mine", "--license", "mit", code=2)
    assert "then `hf auth login`, or set HF_TOKEN" in capsys.readouterr().err

"""Licences as their owners state them: by place, and unknown where nobody states one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from distillkit.report.licence import Licence, common, licence_of, repository

CARD = "---\nlicense: openrail++\nlicense_name: {name}\nlicense_link: LICENSE.md\n---\n# A model\n"


def with_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: openrail++\n---\n# A model\n")


def with_text(folder: Path) -> None:
    (folder / "README.md").write_text("# A model\n\nlicense: mit, says the text\n")
    (folder / "LICENSE.md").write_text("All may use it.")


def with_metadata(folder: Path) -> None:
    save_file(
        {"w": torch.zeros(1)}, folder / "m.safetensors", {"modelspec.license": "Free for all"}
    )
    with_card(folder)  # of other files, perhaps: the file's own comes first


def with_broken_card(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: [\n---\n")


@pytest.mark.parametrize(
    ("make", "inside", "expected"),
    [
        (with_card, "", ("openrail++", None, "model/README.md")),
        (with_text, "", ("other", None, "model/LICENSE.md")),
        (
            with_metadata,
            "m.safetensors",
            ("other", "Free for all", "the metadata of m.safetensors"),
        ),
        (with_broken_card, "", None),
        (lambda folder: None, "", None),
    ],
)
def test_of_this_machine(
    tmp_path: Path,
    make: Callable[[Path], None],
    inside: str,
    expected: tuple[str, str | None, str] | None,
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make(folder)
    found = licence_of(str(folder / inside), folder / inside)
    assert (found and (found.id, found.name, found.where)) == expected
    if expected and expected[0] == "other" and not inside:
        assert found is not None
        assert found.text == folder / "LICENSE.md"


def test_a_part_of_a_pipeline_has_the_pipelines(tmp_path: Path) -> None:
    """A folder above that is no pipeline says nothing of what lies in it."""
    unet = tmp_path / "pipeline" / "unet"
    unet.mkdir(parents=True)
    with_card(unet.parent)
    assert licence_of(str(unet), unet) is None
    (unet.parent / "model_index.json").write_text("{}")
    found = licence_of(str(unet), unet)
    assert found is not None
    assert found.where == "pipeline/README.md"


def test_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier download is read; otherwise the card is fetched only where that is asked for."""
    card = tmp_path / "README.md"
    card.write_text(CARD.format(name="mine"))
    asked: list[str] = []

    def fetch(repo: str, name: str) -> str:
        asked.append(repo)
        return str(card)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    source = "someone/model/unet.safetensors"
    assert licence_of(source, Path(source)) is None
    assert not asked
    found = licence_of(source, Path(source), ask_hub=True)
    link = "https://huggingface.co/someone/model/blob/main/LICENSE.md"
    assert found == Licence("openrail++", "mine", link, "the model card of someone/model")
    assert asked == ["someone/model"]
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(card))
    assert licence_of(source, Path(source)) == found


def test_of_a_package() -> None:
    """The package's own metadata state it; `pip show distillkit` too."""
    found = licence_of("package:distillkit_shapes/teacher", Path("gone"))
    assert found == Licence("apache-2.0", where="the package distillkit")
    assert licence_of("package:no_such_package/x", Path("gone")) is None


def test_several_sources_share_a_licence_or_none_is_taken() -> None:
    mit, other = Licence("mit", where="here"), Licence("other", "Free for all")
    assert common([mit, Licence("mit", where="there")]) == mit
    assert common([mit, other]) is None
    assert common([mit, None]) is None
    assert common([]) is None
    # Two texts without a name may be different ones.
    texts = [Licence("other", text=Path(name)) for name in ("a", "b")]
    assert common(texts) is None


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("someone/model", "someone/model"),
        ("someone/model/deep/file.safetensors", "someone/model"),
        ("/home/me/model", None),
        ("./a/b", None),
        ("package:a/b", None),
        ("model", None),
    ],
)
def test_which_sources_are_on_the_hub(source: str, name: str | None) -> None:
    assert repository(source) == name

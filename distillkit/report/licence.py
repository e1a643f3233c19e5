"""Licences of the weights that a student derives from, as their owners state them.

Read from a model card's front matter, a licence file, a checkpoint's metadata, or the package that
the weights ship in. What none of these states stays unknown: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = "package:"
FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt")
CARD = "README.md"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Licence:
    """What is stated of one model's licence."""

    id: str
    """As the hub's front matter takes it, such as `apache-2.0`; `other` beside a name or text."""
    name: str | None = None
    link: str | None = None
    where: str = ""
    """Where it is stated."""
    text: Path | None = None
    """The licence's own text on this machine."""

    @property
    def title(self) -> str:
        """For readers."""
        return self.name or self.id


def repository(source: str) -> str | None:
    """`owner/name` of a source on the hub; None for what is on this machine or in a package."""
    parts = source.split("/")
    on_hub = len(parts) > 1 and all(parts) and not source.startswith((".", "~", PACKAGE))
    return "/".join(parts[:2]) if on_hub and not Path(source).exists() else None


def licence_of(source: str, path: Path, ask_hub: bool = False) -> Licence | None:
    """The licence that is stated for a source; None where nothing states one.

    `source`: as a recipe names it. `path`: where it lies, if it is on this machine. `ask_hub`:
    fetch the model card of a repository; else it is read if an earlier download left it here.
    """
    if (repo := repository(source)) is not None:
        card = _hub_card(repo, ask_hub)
        return None if card is None else _of_card(card, f"the model card of {repo}", repo)
    if path.exists():
        for found in (_of_checkpoint(path), *map(_of_folder, _folders(path))):
            if found is not None:
                return found
    if source.startswith(PACKAGE):
        return _of_package(source.removeprefix(PACKAGE).partition("/")[0])
    return None


def common(licences: Sequence[Licence | None]) -> Licence | None:
    """The licence that all sources share; None where one is unknown, or two differ."""
    first = licences[0] if licences else None
    if first is None or any(each is None or _terms(each) != _terms(first) for each in licences):
        return None
    return first


def _terms(licence: Licence) -> tuple[str | Path | None, ...]:
    """By what licences are told apart: an `other` by its name, and without one by its text."""
    unnamed = licence.id == "other" and licence.name is None
    return licence.id, licence.name, licence.text if unnamed else None


def _folders(path: Path) -> Iterator[Path]:
    """The folder of the weights; and that of the pipeline which it is a part of."""
    folder = path if path.is_dir() else path.parent
    yield folder
    if (folder.parent / "model_index.json").is_file():
        yield folder.parent


def _of_folder(folder: Path) -> Licence | None:
    if (folder / CARD).is_file() and (found := _of_card(folder / CARD, f"{folder.name}/{CARD}")):
        return found
    for name in FILES:
        if (folder / name).is_file():
            return Licence("other", None, name, f"{folder.name}/{name}", folder / name)
    return None


def _of_card(card: Path, where: str, repo: str | None = None) -> Licence | None:
    """Of a model card's front matter."""
    stated = _front_matter(card)
    licence = stated.get("license")
    if not isinstance(licence, str) or not licence.strip():
        return None
    name, link = stated.get("license_name"), stated.get("license_link")
    if link is not None and "://" not in str(link) and repo is not None:
        link = f"{HUB}/{repo}/blob/main/{link}"
    beside = card.parent / str(link or FILES[0])
    text = beside if beside.is_file() else None
    return Licence(licence.strip(), name and str(name), link and str(link), where, text)


def _front_matter(card: Path) -> dict[str, Any]:
    """A model card's; empty where there is none that is valid."""
    import yaml
    from huggingface_hub import metadata_load

    try:
        return metadata_load(card) or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}


def _of_checkpoint(path: Path) -> Licence | None:
    """`modelspec.license` in a safetensors file's metadata (the ModelSpec standard)."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get("modelspec.license")
    except (OSError, SafetensorError):
        return None
    return Licence("other", stated, None, f"the metadata of {path.name}") if stated else None


def _of_package(module: str) -> Licence | None:
    """Of the distribution that a module belongs to, from its metadata."""
    owners = metadata.packages_distributions().get(module, [])
    owners += [
        each.name  # an installation that can be edited lists no modules, but its entry points
        for each in metadata.distributions()
        if any(point.module.partition(".")[0] == module for point in each.entry_points)
    ]
    for owner in owners:
        stated = str(metadata.metadata(owner).json.get("license_expression", ""))
        if stated and " " not in stated:
            return Licence(stated.lower(), where=f"the package {owner}")
        if stated:  # several, which the hub has no identifier for
            return Licence("other", stated, where=f"the package {owner}")
    return None


def _hub_card(repo: str, ask: bool) -> Path | None:
    """The repository's model card; None where it isn't here and can't be fetched."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cached = try_to_load_from_cache(repo, CARD)
    if isinstance(cached, str):
        return Path(cached)
    if not ask:
        return None
    try:
        return Path(hf_hub_download(repo, CARD))
    except Exception:  # the hub's client raises many kinds; without a card nothing is stated
        return None

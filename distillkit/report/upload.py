"""A student on the Hugging Face hub: which files go up, and their upload in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from distillkit.errors import UserError
from distillkit.report.licence import CARD


def page_of(exported: Path) -> str:
    """What an exporter wrote about its folder (README.md) or its file (of the same name, .md)."""
    page = exported / CARD if exported.is_dir() else exported.with_suffix(".md")
    return page.read_text(encoding="utf-8") if page.is_file() else ""


def files_to_upload(exported: Path, card: Path) -> dict[str, Path]:
    """Path in the repository -> file on this machine: an exported folder, or a file with what lies
    beside it under its name; and the card's, which stands in the place of the exporter's page."""
    if exported.is_dir():
        inside = {file.relative_to(exported): file for file in sorted(exported.rglob("*"))}
    else:
        beside = sorted(file for file in exported.parent.iterdir() if file.stem == exported.stem)
        inside = {Path(file.name): file for file in beside if file.suffix != ".md"}
    inside |= {Path(file.name): file for file in sorted(card.iterdir())}
    return {
        name.as_posix(): file
        for name, file in inside.items()
        if file.is_file() and not any(part.startswith(".") for part in name.parts)
    }


def check_repository(name: str) -> None:
    """Raise `UserError` for what can't be a repository's name on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"--push {name}: {error}") from None
    if name.count("/") != 1:
        raise UserError(f"--push {name}: write owner/name, as on the hub")


def check_token(name: str) -> None:
    """Raise `UserError` where this machine has no token for the hub."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(
            f"--push {name}: this machine has no token of the Hugging Face hub. Make one that can "
            "write at https://huggingface.co/settings/tokens, then `hf auth login`, or set "
            "HF_TOKEN. --dry-run lists what would go up without one."
        )


def upload(name: str, files: Mapping[str, Path], private: bool = False) -> str:
    """Make the repository if it is missing, and put the files there in one commit; returns its
    address. Raises `UserError`: nothing is there then, or the earlier commit."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        made = api.create_repo(name, private=private or None, exist_ok=True)
        operations = [CommitOperationAdd(path, str(file)) for path, file in files.items()]
        api.create_commit(made.repo_id, operations, commit_message="Upload a student by distillkit")
    except Exception as error:  # the hub's client raises many kinds, its HTTP library's among them
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"--push {name}: the hub could not be reached, or refused: {said}. What was exported "
            "stays; the same command tries again."
        ) from error
    return str(made)

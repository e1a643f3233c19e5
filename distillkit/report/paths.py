"""Texts without the folders of the machine that they were written on, for what is shared."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def without_folders(value: Any) -> Any:
    """The same, with the absolute paths in it cut to their last names: also in the difference of
    two models (`A - B`), and behind the = of an option. Mappings and lists are gone through."""
    if isinstance(value, dict):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    return " - ".join(map(_cut, value.split(" - "))) if isinstance(value, str) else value


def _cut(text: str) -> str:
    head, equals, path = text.rpartition("=")
    return head + equals + Path(path).name if path.startswith(("/", "~")) else text

"""The core names no plugin, no model family and no metric, in code, strings or comments.

What it knows of them comes from the registry. A word of the list below in a core file means that a
third party's part would be worse off than ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import distillkit
from distillkit.registry.entry_points import installed

PACKAGE = Path(distillkit.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.j2")])

PLUGINS = ("nitro", "nitrofusion", "nitrosd", "ladd", "dmd2")
FAMILIES = ("sdxl", "sd3", "flux", "unet", "dit", "vae", "lightning", "hyper", "turbo")
PARTS = ("hinge", "lora", "bottom-up")
METRICS = ("frechet", "fréchet", "fid", "kid", "sharpness", "clipscore")
WORDS = (*PLUGINS, *FAMILIES, *PARTS, *METRICS)
"""Found as words of their own, in any case: also within `a_name`, `aName` and `AName`."""

LETTER = r"[^\W_\d]"

PATTERNS = {
    "shapes": re.compile(r"shapes.world|distillkit.shapes|type: shapes|[\"'`]shapes[\"'`]"),
    # Its package, that is; the library of that name is a dependency of the core's.
    "diffusers": re.compile(r"distillkit_diffusers"),
}
"""Names of plugins that are ordinary words as well."""

ALLOWED: dict[str, dict[str, str]] = {}
"""File in `distillkit/` -> word -> why the core has to name it."""


def words_in(text: str) -> Iterator[tuple[int, str]]:
    """Every forbidden word with its line, from 1."""
    for number, line in enumerate(text.splitlines(), start=1):
        apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", line)  # `aUNetName` -> `a_UNet_Name`
        plain = f"{line} {apart}".casefold()
        for word in WORDS:
            if re.search(rf"(?<!{LETTER}){re.escape(word)}s?(?!{LETTER})", plain):
                yield number, word
        for word, pattern in PATTERNS.items():
            if pattern.search(line):
                yield number, word


def parts_in(text: str) -> Iterator[tuple[int, str]]:
    """Every `type: NAME` of a part that a plugin brought, with its line."""
    entries = installed().registry.entries()
    theirs = {entry.name for entry in entries if entry.origin.plugin != "distillkit"}
    for number, line in enumerate(text.splitlines(), start=1):
        for name in re.findall(r"\btype: ([a-z][\w-]*)", line):
            if name in theirs:
                yield number, f"type: {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_a_core_file_names_nobody(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    allowed = ALLOWED.get(file.relative_to(PACKAGE).as_posix(), {})
    found = [(n, word) for n, word in (*words_in(text), *parts_in(text)) if word not in allowed]
    lines = text.splitlines()
    assert not found, "\n".join(f"{file}:{n}: {word}: {lines[n - 1].strip()}" for n, word in found)


def test_what_is_allowed_is_needed() -> None:
    for name, words in ALLOWED.items():
        found = {word for _, word in words_in((PACKAGE / name).read_text(encoding="utf-8"))}
        assert found >= words.keys(), f"{name} does not name {sorted(words.keys() - found)}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("class TinyUNetStudent: ...", ["unet"]),
        ("sdxl_schedule = 'FLUX.1'", ["sdxl", "flux"]),
        ("better than KIDs and FID, by a Fréchet distance", ["fréchet", "fid", "kid"]),
        ("DMD2's and NitroFusion's; x_dmd2", ["nitro", "nitrofusion", "dmd2"]),
        ("import distillkit_shapes  # the shapes world", ["shapes"]),
        ("teacher: {type: shapes}", ["shapes"]),
        ("self._shapes: shapes, hyperparameters a ladder; editing, nitrogen, kidney, evaluate", []),
        ("x_0_shape: torch.Size; by diffusers", []),
    ],
)
def test_words_are_found_by_hand(line: str, words: list[str]) -> None:
    assert [word for _, word in words_in(f"\n{line}")] == words
    assert all(number == 2 for number, _ in words_in(f"\n{line}"))


def test_parts_of_plugins_are_found_by_hand() -> None:
    assert list(parts_in("refresh: {type: random}\nprompts: {type: list}")) == [(1, "type: random")]

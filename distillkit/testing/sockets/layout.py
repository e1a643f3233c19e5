"""Contract of a layout."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.testing.building import built
from distillkit.testing.findings import Findings, calling, each

KEYS = ("conv.weight", "conv.bias", "denoiser.conv.weight", "text.embedding")


def layout_findings(config: ComponentConfig) -> Findings:
    """Shared names lead to keys that the file has; what is not of the family is None."""
    part: Any = built(config)
    yield from each(_names(part), _words(part), _files(part))


def _names(part: Any) -> Findings:
    if part.names([]) is not None:
        yield "names(): a file without tensors should be None"
    for keys in (KEYS, frozenset(KEYS)):
        found = part.names(keys)
        if found is None:
            continue
        if not isinstance(found, Mapping) or not set(found.values()) <= set(KEYS):
            yield "names(): leads to a key that the file does not have"
        elif not found or not all(isinstance(name, str) and name for name in found):
            yield "names(): a file without the family's tensors should be None"
        elif len(set(found.values())) < len(found):
            yield "names(): two names lead to one key"


def _words(part: Any) -> Findings:
    for keys in ((), KEYS):
        said = part.what_is(keys)
        if not isinstance(said, str) or not said:
            yield "what_is(): should describe every file"


def _files(part: Any) -> Findings:
    """Folders and files that are none of any family's."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        file, missing = folder / "notes.safetensors", folder / "missing"
        file.write_text("no tensors", encoding="utf-8")
        for path, what in ((missing, "a path that does not exist"), (file, "a torn file")):
            with calling(f"recognises() of {what}"):
                if part.part.recognises(path) is not False:
                    yield f"recognises(): {what} is a model of the family to it"
        with calling("published_shift() of a folder that states none"):
            shift = part.part.published_shift(folder)
        if shift is not None:
            yield f"published_shift(): {shift!r} for a folder that states none, not None"
        try:
            with calling("open() of a folder without a model"):
                part.part.open(str(folder), None, "float32")
        except Exception as raised:
            if not isinstance(raised.__cause__, UserError):
                raise
        else:
            yield "open(): a folder without a model should be a UserError"

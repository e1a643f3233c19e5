"""Contracts of what leaves and enters as files: exporter, layout."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from distillkit.configs import ComponentConfig
from distillkit.contracts import Teacher
from distillkit.errors import UserError
from distillkit.examples.student import ExampleStudentConfig
from distillkit.testing.findings import Findings

KEYS = ("conv.weight", "conv.bias", "denoiser.conv.weight", "text.embedding")


def exporter(config: ComponentConfig, taught_by: Teacher) -> Findings:
    """It writes its path and nothing beside it, twice alike; or it refuses in a sentence."""
    part: Any = config.build()  # type: ignore[attr-defined]
    network = ExampleStudentConfig().build(taught_by)
    if part.suffix and not part.suffix.startswith("."):
        yield f"suffix: {part.suffix!r} should start with a dot, or be empty for a folder"
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"student{part.suffix}"
        try:
            said = part.export(network, 500, path)
        except UserError:
            return  # a student of another family
        if not path.exists() or path.is_dir() == bool(part.suffix):
            yield f"export(): {'a file' if part.suffix else 'a folder'} should be at its path"
        if beside := sorted(file.name for file in path.parent.iterdir() if file != path):
            yield f"export(): left {beside[0]} beside what it wrote"
        if isinstance(said, str) or not all(isinstance(line, str) for line in said):
            yield "export(): should return a list of lines"
        first = path.read_bytes() if path.is_file() else b""
        part.export(network, 500, path)
        if path.is_file() and path.read_bytes() != first:
            yield "export(): the same student gives another file the second time"


def layout(config: ComponentConfig) -> Findings:
    """Shared names lead to keys that the file has; what is not of the family is None."""
    part: Any = config.build()  # type: ignore[attr-defined]
    if part.names([]) is not None:
        yield "names(): a file without tensors should be None"
    found = part.names(KEYS)
    if found is not None and not set(found.values()) <= set(KEYS):
        yield "names(): leads to a key that the file does not have"
    for keys in ((), KEYS):
        if not isinstance(part.what_is(keys), str) or not part.what_is(keys):
            yield "what_is(): should describe every file"

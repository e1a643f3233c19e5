"""Contract of an exporter, and of every file that a part writes."""

from __future__ import annotations

import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distillkit.configs import ComponentConfig
from distillkit.contracts import StudentNetwork, Teacher
from distillkit.errors import UserError
from distillkit.examples.student import ExampleStudentConfig
from distillkit.testing.building import built
from distillkit.testing.findings import Findings, Snapshot, calling

PICKLES = {".pt", ".pth", ".pkl", ".bin", ".ckpt"}


def exporter_findings(
    config: ComponentConfig, taught_by: Teacher, student: StudentNetwork | None
) -> Findings:
    """It writes its path and nothing beside it, alike at all times; or it refuses in a sentence.

    `student`: of the exporter's own family; without one it is offered a student of the examples.
    """
    part: Any = built(config).part
    network = student or ExampleStudentConfig().build(taught_by)
    if not isinstance(part.suffix, str) or (part.suffix and not part.suffix.startswith(".")):
        yield f"suffix: {part.suffix!r} should start with a dot, or be empty for a folder"
        return
    before = Snapshot([network.module])
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / f"student{part.suffix}"
        try:
            with calling("export()"):
                said = part.export(network, 500, path)
        except Exception as raised:
            if student is None and isinstance(raised.__cause__, UserError):
                return  # a student of another family
            raise
        sound = True
        for finding in _exported(part, network, path, said, before):
            sound = False
            yield finding
        if sound:
            _wait_for_another_time()
            yield from _again(part, network, path)


def _exported(
    part: Any, network: StudentNetwork, path: Path, said: Any, before: Snapshot
) -> Findings:
    """The first export, and another one at once."""
    yield from _written(path, part.suffix)
    if not isinstance(said, Sequence) or isinstance(said, str) or not _are_lines(said):
        yield "export(): should return a list of lines"
    yield from _again(part, network, path)
    yield from network_changes(network, before, "export()")


def _again(part: Any, network: StudentNetwork, path: Path) -> Findings:
    first = _contents(path)
    with calling("export(), over what it wrote before,"):
        part.export(network, 500, path)
    if _contents(path) != first:
        yield "export(): the same student gives another file the second time"


def _wait_for_another_time() -> None:
    """Until the clock shows another time in files, which count seconds, and in archives two."""
    written = time.time() // 2
    while time.time() // 2 == written:
        time.sleep(0.05)


def network_changes(network: StudentNetwork, before: Snapshot, call: str) -> Findings:
    """Whether a call that writes files left the student as it was `before`."""
    if network.module is not before.modules[0] or any(before.changes()):
        yield (
            f"{call}: changed the student's network: convert a copy of its weights, and leave its "
            "modes as they were"
        )


def _are_lines(said: Sequence[Any]) -> bool:
    return all(isinstance(line, str) for line in said)


def _written(path: Path, suffix: str) -> Findings:
    if not path.exists() or path.is_dir() == bool(suffix):
        yield f"export(): {'a file' if suffix else 'a folder'} should be at its path"
    # Beside a file there may be a page about it, of the same name.
    strange = [f.name for f in path.parent.iterdir() if f != path and f.stem != path.stem]
    if strange:
        yield f"export(): left {min(strange)} beside what it wrote"
    yield from files_written(path, "export()")


def _contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files_of(path)}


def files_of(path: Path) -> list[Path]:
    """The file, or every file in the folder."""
    return [file for file in (path, *sorted(path.rglob("*"))) if file.is_file()]


def files_written(path: Path, call: str) -> Iterator[str]:
    """What is wrong with the files that a call wrote: none, empty ones, pickles."""
    files = files_of(path)
    if not files:
        yield f"{call}: wrote no file"
    elif not any(file.stat().st_size for file in files):
        yield f"{call}: wrote an empty file"
    for file in files:
        if file.suffix in PICKLES or _holds_a_pickle(file):
            yield f"{call}: {file.name} is a pickle: write safetensors"


def _holds_a_pickle(file: Path) -> bool:
    """Whether its bytes are those of a pickle, or of `torch.save`, whatever its name."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith(".pkl") for name in archive.namelist())
    with file.open("rb") as opened:
        start = opened.read(2)
    return len(start) == 2 and start[0] == 0x80 and 2 <= start[1] <= 5

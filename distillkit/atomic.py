"""Writing so that a file is there whole or not at all: temporary name, flush, rename."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what stands there when the block ends takes its place.

    On an error nothing is left and an older `path` stays. A full disk or a folder without write
    permission becomes a `UserError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _settle(temporary)
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        blocking = next((place for place in path.parents if place.is_file()), None)
        why = f"{blocking} is a file, not a folder" if blocking else error.strerror or error
        raise UserError(
            f"Could not write {path}: {why}. What was there is unharmed; free some space or name "
            "another folder, and run again."
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink()


def _settle(path: Path) -> None:
    """Every file is on the disk, and others may read it as any new file of this user."""
    umask = os.umask(0)
    os.umask(umask)
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
    for file in files:
        with suppress(OSError):  # some file systems have no modes
            file.chmod(0o666 & ~umask)  # safetensors' own files are for their owner alone
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with appearing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file, whole or not at all."""
    with appearing(path) as temporary:
        write_tensors(temporary, tensors, metadata)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file in a place that `appearing` gave."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
        save_file(plain, path, dict(metadata) if metadata else None)
    except SafetensorError as error:  # the library's way to report a full disk
        raise OSError(str(error)) from error


def sha256(path: Path) -> str:
    """Checksum of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

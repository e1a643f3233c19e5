"""Writing so that a file or folder is there whole or not at all: temporary name, flush, rename."""

from __future__ import annotations

import ctypes
import glob
import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from distillkit.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_UNFINISHED = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d+)\.(?P<kind>part|old)$")
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Linux: paths relative to the working directory; both names change places."""


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is there when the block ends replaces `path`.

    On an error nothing is left and an older `path` stays. A full disk or a folder without write
    permission becomes a `UserError`.
    """
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # No other process has this name: what lies there is of one with the same number that was
        # killed, such as the 1 of a container that is started again.
        _remove(temporary)
        yield temporary
        _flush(temporary)
        _put(temporary, path)
    except OSError as error:
        blocking = next((place for place in path.parents if place.is_file()), None)
        why = f"{blocking} is a file, not a folder" if blocking else error.strerror or error
        raise UserError(
            f"Could not write {path}: {why}. What was there is unharmed; free some space or name "
            "another folder, and run again."
        ) from error
    finally:
        _remove(temporary)


def _put(temporary: Path, path: Path) -> None:
    """Rename to `path`. A folder that is there changes places with the new one in one step, so that
    a kill leaves either the old or the new one."""
    if not path.is_dir() or not temporary.is_dir():
        os.replace(temporary, path)
    elif not _exchange(temporary, path):
        # A file system without exchange: the old folder keeps another name until the new is there.
        old = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.old")
        _remove(old)  # of a killed process with the same number, whose new folder `path` was
        os.rename(path, old)
        os.rename(temporary, path)
        _remove(old)
    with suppress(OSError):  # some file systems can't flush a folder
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names atomically; False where the system can't."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    done = renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)
    return bool(done == 0)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


def remove_unfinished(folder: Path, name: str | None = None) -> int:
    """Remove what killed processes of this machine left half-written; returns its bytes.

    To be called while this process writes nothing there: what has its own number is removed, since
    a killed process had that number before.
    `name`: of the file or folder there that was being written; None looks for all of them, within
    folders too. A folder that was just being replaced has its old content again.
    """
    freed, pattern = 0, f".{glob.escape(name)}.*" if name is not None else "**/.*"
    for path in sorted(folder.glob(pattern)) if folder.is_dir() else []:
        named = _UNFINISHED.fullmatch(path.name)
        if named is None or named["host"] != _host() or _is_alive(int(named["pid"])):
            continue
        if name is not None and named["name"] != name:
            continue
        if named["kind"] == "old" and not path.with_name(named["name"]).exists():
            os.rename(path, path.with_name(named["name"]))
            continue
        files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file()]
        freed += sum(file.stat().st_size for file in files)
        _remove(path)
    return freed


def _is_alive(pid: int) -> bool:
    """Whether another process has this number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    """Put every file on the disk, readable by others as any new file of this user."""
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
    """Write a safetensors file in a place that `appearing` gave. Tensors that share their values,
    such as tied weights, are each written whole."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(_apart(tensors), path, dict(metadata) if metadata else None)
        _sort_metadata(path)
    except SafetensorError as error:  # the library's way to report a full disk
        raise OSError(str(error)) from error


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, each in memory of its own: the library writes no two that share theirs."""
    found: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        found[name] = plain.clone() if plain.untyped_storage().data_ptr() in taken else plain
        taken.add(plain.untyped_storage().data_ptr())
    return found


def _sort_metadata(path: Path) -> None:
    """The library writes metadata in random order: equal weights should be equal bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        named = header.get("__metadata__", {})
        if len(named) < 2:
            return
        header["__metadata__"] = dict(sorted(named.items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text + b" " * (size - len(text)))


def sha256(path: Path) -> str:
    """Checksum of a file, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

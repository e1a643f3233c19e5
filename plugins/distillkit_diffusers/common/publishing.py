"""A published pipeline folder appears whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from distillkit.atomic import appearing
from distillkit.errors import UserError


@contextmanager
def published(folder: Path) -> Iterator[Path]:
    """A temporary folder to write, which takes the place of `folder` afterwards.

    An earlier publication in the same folder is replaced; a folder with other files is a
    `UserError`.
    """
    folder = Path(folder)
    earlier = (folder / "model_index.json").is_file()
    if folder.exists() and not earlier and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder} has other files than a pipeline's; name another folder")
    with appearing(folder) as temporary:
        temporary.mkdir()
        try:
            yield temporary
        except SafetensorError as error:  # the library's way to report a full disk
            raise OSError(str(error)) from error

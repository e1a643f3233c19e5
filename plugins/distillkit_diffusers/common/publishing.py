"""A published pipeline folder appears whole or not at all, without paths of this machine."""

from __future__ import annotations

import json
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
            _drop_paths(temporary)
        except SafetensorError as error:  # the library's way to report a full disk
            raise OSError(str(error)) from error


def _drop_paths(folder: Path) -> None:
    """Take out of the parts' configs the folders that they were loaded from: these are nobody
    else's, and the same student is the same bytes on every machine."""
    for file in folder.glob("*/config.json"):
        config = json.loads(file.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

"""Contracts of what leaves and enters as files: exporters, layouts, files inside packages.

They work before and after a run; the parts of a run itself are in `contracts`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from distillkit.errors import UserError

if TYPE_CHECKING:
    from distillkit.contracts import StudentNetwork, Teacher

PREFIX = "package:"
"""Begins a path inside an installed package, as recipes name it: `package:NAME/inside/it`."""

SHIFT_KEY = "timestep_shift"
"""Where a safetensors file's metadata keeps the student's timestep shift, as a decimal number."""


class Exporter(Protocol):
    """Writes a finished student in a form that other software reads."""

    suffix: str
    """End of the file's name, such as `.safetensors`; empty for a folder."""

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        """Write `path`, whole or not at all; returns what the user should know of it, in lines.

        Raises `UserError` for a student of another family.
        """
        ...


class Layout(Protocol):
    """What a model family looks like in files: names of tensors, and how a model is opened."""

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        """The denoiser's tensors: a name that all files of the family share -> the file's key.

        None where the file holds no denoiser of this family.
        """
        ...

    def what_is(self, keys: Collection[str]) -> str:
        """What a file with these keys seems to be: "a text encoder"."""
        ...

    def recognises(self, model: Path) -> bool:
        """Whether the folder or file on disk is a model of this family."""
        ...

    def published_shift(self, folder: Path) -> int | None:
        """The timestep shift that a published folder of this family states, if it states one."""
        ...

    def open(self, model: str, weights: str | None, dtype: str) -> Teacher:
        """The model, ready to encode, denoise and decode.

        `model`: what the family's teacher takes as its model. `weights`: a file that replaces its
        denoiser's. `dtype`: `float32` or `bfloat16`. Raises `UserError`.
        """
        ...

    # Optional: `published_sampler(folder: Path) -> Sampler` tells how the student of a published
    # folder goes from one noise level to the next; without it fresh noise is added (`renoise`).
    # `published_levels(folder: Path) -> Sequence[float]`: noise levels of its roll-outs, falling,
    # as `StudentConfig.levels`; without it 999, 749, 499, 249. Both may be asked of any path.


def shift_of_file(path: Path) -> int | None:
    """The timestep shift that a safetensors file of weights states, if it states one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            stated = (file.metadata() or {}).get(SHIFT_KEY, "")
    except (OSError, SafetensorError):
        return None  # no such file, or none of this kind: whoever reads the weights reports it
    return int(stated) if stated.isdecimal() else None


def shift_of(path: Path, layouts: Collection[Layout]) -> int | None:
    """The timestep shift that goes with the weights in a file or a published folder, if stated."""
    if not path.is_dir():
        return shift_of_file(path)
    shifts = (layout.published_shift(path) for layout in layouts)
    return next((shift for shift in shifts if shift is not None), None)


def agreed_shift(path: Path, given: int | None, layouts: Collection[Layout]) -> int | None:
    """The timestep shift of the weights in `path`: as stated there, or else `given`.

    Raises `UserError` where the two differ.
    """
    stated = shift_of(path, layouts)
    if stated is not None and given is not None and stated != given:
        raise UserError(
            f"--shift {given}: {path} states that its weights go with timestep shift {stated}, and "
            "weights and shift belong together; leave --shift out"
        )
    return given if stated is None else stated


def packaged_path(name: str, field: str) -> Path:
    """The path that a recipe's `field` names: as it stands, or inside an installed package.

    Raises `UserError` where there is no such package; whether the file exists is not asked.
    """
    if not name.startswith(PREFIX):
        return Path(name).expanduser()
    package, _, inside = name.removeprefix(PREFIX).partition("/")
    try:
        return Path(str(files(package))) / inside
    except (ImportError, ValueError):
        raise UserError(f"{field}: there is no package {package!r} for {name!r}") from None


def hub_answers() -> bool:
    """Whether the hub can be reached; one short try, where the hub's client would retry long."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=5):
            return True
    except HTTPError:
        return True  # an error status is an answer too
    except OSError:
        return False

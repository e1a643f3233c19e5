"""Contracts of what leaves and enters as files: exporters and layouts.

Apart from `contracts`, whose parts a run is made of: these work before a run and after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from distillkit.contracts import StudentNetwork

SHIFT_KEY = "timestep_shift"
"""Where a safetensors file's metadata keeps the student's shift, as a decimal number."""


class Exporter(Protocol):
    """Writes a finished student in a form that other software reads."""

    suffix: str
    """End of the file's name, such as `.safetensors`; empty for a folder."""

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        """Write `path`, whole or not at all; returns what there is to say about it, in lines.

        Raises `UserError` for a student of another family.
        """
        ...


class Layout(Protocol):
    """Knows how a model family names the tensors of its denoiser in files."""

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        """The denoiser's tensors: a name that all files of the family share -> the file's key.

        None where the file holds no denoiser of this family.
        """
        ...

    def what_is(self, keys: Collection[str]) -> str:
        """What a file with these keys seems to be: "a VAE"."""
        ...

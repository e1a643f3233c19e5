"""Checkpoints: written atomically, verified by checksum, resumed bit for bit.

A checkpoint is a folder `00000300/` of safetensors files, one a part, with a manifest of their
checksums. It appears under its name when it is whole. There is no pickle, and no RNG state:
randomness depends on the iteration's number alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from distillkit.atomic import appearing, sha256, write_tensors

Parts = Mapping[str, Mapping[str, Tensor]]
"""Tensors by part and name."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a run folder; the newest `keep` stay."""

    folder: Path
    keep: int
    warn: Callable[[str], None] = print

    def save(self, iteration: int, parts: Parts) -> Path:
        """Write the state after `iteration` iterations, then drop the oldest checkpoints.

        Later ones, which a resume passed over as damaged, go too: they are no part of this run.
        """
        path = self.folder / f"{iteration:08d}"
        with appearing(path) as temporary:
            temporary.mkdir()
            for name, tensors in parts.items():
                write_tensors(temporary / f"{name}.safetensors", tensors)
            sums = {f.name: sha256(f) for f in sorted(temporary.iterdir())}
            manifest = {"iteration": iteration, "sha256": sums}
            (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
        found = self.iterations()
        there = [each for each in found if each <= iteration]
        for gone in {*found} - {*there[-self.keep :]}:
            shutil.rmtree(self.folder / f"{gone:08d}")
        return path

    def iterations(self) -> list[int]:
        """Iterations that have a checkpoint, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def latest(self) -> tuple[int, dict[str, dict[str, Tensor]]] | None:
        """The newest intact checkpoint; a damaged one is skipped with a warning."""
        from safetensors.torch import load_file

        for iteration in reversed(self.iterations()):
            path = self.folder / f"{iteration:08d}"
            fault = find_fault(path)
            if fault is None:
                files = sorted(path.glob("*.safetensors"))
                return iteration, {f.stem: load_file(f) for f in files}
            self.warn(f"Checkpoint {path} is damaged ({fault}); trying the one before it.")
        return None

    def latest_weights(self) -> tuple[int, Path] | None:
        """The newest checkpoint's iteration, and the file of the weights that would be published:
        the EMA's, or the student's own. Nothing else of the checkpoint is read."""
        for iteration in reversed(self.iterations()):
            path = self.folder / f"{iteration:08d}"
            name = "ema.safetensors" if "ema.safetensors" in _sums(path) else "student.safetensors"
            fault = find_fault(path, [name])
            if fault is None:
                return iteration, path / name
            self.warn(f"Checkpoint {path} is damaged ({fault}); trying the one before it.")
        return None


def _sums(path: Path) -> dict[str, str]:
    """Checksums of a checkpoint's files by name, or nothing where they can't be read."""
    try:
        found: dict[str, str] = json.loads((path / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError):
        return {}
    return found


def find_fault(path: Path, names: Collection[str] | None = None) -> str | None:
    """What is wrong with a checkpoint folder, or with its files `names`; None if nothing is."""
    try:
        sums = json.loads((path / "manifest.json").read_text())["sha256"]
    except (OSError, ValueError, KeyError) as error:
        return f"manifest.json can't be read: {error}"
    for name in sums if names is None else names:
        expected = sums.get(name)
        if not (path / name).is_file():
            return f"{name} is missing"
        if sha256(path / name) != expected:
            return f"{name} does not match its checksum"
    return None

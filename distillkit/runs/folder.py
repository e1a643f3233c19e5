"""A run on disk: what lies where, and the log.

recipe.yaml           the resolved recipe
run.json              command, versions of distillkit, its libraries and plugins, threads, and the
                      pictures of an iteration, over all processes
log.jsonl             one line an iteration
checkpoints/00000300/ to resume from
snapshots/*.safetensors  the student at the start and after every stage
previews/*.png        teacher beside student, fixed prompts and noise
metrics.json, grids/*.png, report.html, student/   once the run is finished
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from distillkit.atomic import write_text
from distillkit.errors import UserError


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def grids(self) -> Path:
        return self.path / "grids"

    @property
    def previews(self) -> Path:
        return self.path / "previews"

    def snapshot(self, name: str) -> Path:
        """The student's published weights at a moment that has a name: "start", "1-step"."""
        return self.path / "snapshots" / f"{name}.safetensors"

    def snapshots(self) -> list[str]:
        """Names of the snapshots, oldest file first."""
        files = (self.path / "snapshots").glob("*.safetensors")
        return [f.stem for f in sorted(files, key=lambda f: f.stat().st_mtime_ns)]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Inside, no other process can run in the folder; it may be entered again by this one.

        Raises `UserError`.
        """
        from filelock import FileLock, Timeout

        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path.resolve() / ".lock", is_singleton=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"{self.path} is in use by another run; wait for it, stop it, or name another --out"
            ) from None
        except OSError as error:
            raise UserError(f"Could not write to {self.path}: {error.strerror or error}") from None
        try:
            yield
        finally:
            lock.release()

    def create(
        self,
        recipe_text: str,
        plugins: Mapping[str, str],
        threads: int | None = None,
        pictures: int | None = None,
    ) -> None:
        """Start a run here: its recipe, and what made it. `pictures`: of an iteration."""
        write_text(self.recipe, recipe_text)
        about: dict[str, Any] = {"command": sys.argv, "python": platform.python_version()}
        about |= {"plugins": dict(plugins), "versions": _versions(), "threads": threads}
        about |= {"pictures": pictures}
        write_text(self.path / "run.json", json.dumps(about, indent=1))

    def about(self) -> dict[str, Any]:
        """What `run.json` holds: command, versions, plugins, threads, pictures of an iteration;
        empty where there is none."""
        try:
            found = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def pictures(self) -> int | None:
        """Pictures of the run's iterations; None where an earlier version began it."""
        found = self.about().get("pictures")
        return found if isinstance(found, int) else None

    def changed_since(self, plugins: Mapping[str, str]) -> list[str]:
        """What differs from the versions that started the run: `torch 2.12.0 -> 2.13.0`."""
        about = self.about()
        now = {"python": platform.python_version()} | _versions() | dict(plugins)
        before = {"python": about.get("python", "?")}
        before |= about.get("versions", {}) | about.get("plugins", {})
        return [
            f"{name} {before.get(name, 'absent')} -> {now.get(name, 'absent')}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]

    def phase_ends(self) -> dict[str, int]:
        """Phases in the order of training -> iterations that were done when each ended, or by now;
        a snapshot has the name of the phase that it ends."""
        rows = read_log(self.log) if self.log.is_file() else []
        return {row["phase"]: row["iteration"] + 1 for row in rows}

    def rewind_log(self, iteration: int) -> None:
        """Forget what was logged of iterations that will be done again."""
        if self.log.exists():
            kept = [row for row in read_log(self.log) if row["iteration"] < iteration]
            write_text(self.log, "".join(json.dumps(row) + "\n" for row in kept))

    def append_log(self, row: dict[str, Any]) -> None:
        """Add an iteration's line."""
        try:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise UserError(
                f"Could not write {self.log}: {error.strerror}. The last checkpoint stands; free "
                "some space and continue with --resume."
            ) from error


def launched_processes() -> int:
    """Processes of this launch, known before they have found each other."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The log's lines; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _versions() -> dict[str, str]:
    """Versions of distillkit and of what it requires."""
    required = [Requirement(text) for text in metadata.requires("distillkit") or ()]
    names = [each.name for each in required if each.marker is None or each.marker.evaluate()]
    return {name: metadata.version(name) for name in ("distillkit", *names)}

"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from distillkit import examples
from distillkit.registry.entry_points import installed


@pytest.fixture
def examples_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`distillkit.examples` as plugins of this environment, beside the installed ones."""
    names = sorted(p.stem for p in Path(examples.__path__[0]).glob("*.py") if p.stem != "__init__")
    more = [EntryPoint(f"example-{n}", f"distillkit.examples.{n}", "distillkit") for n in names]

    def found(*, group: str) -> Any:
        return [*entry_points(group=group), *more]

    monkeypatch.setattr("distillkit.registry.entry_points.entry_points", found)
    installed.cache_clear()
    yield
    monkeypatch.undo()
    installed.cache_clear()

"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest

from distillkit.registry.entry_points import installed
from tests.distillkit.launch import example_plugins


@pytest.fixture
def examples_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`distillkit.examples` as plugins of this environment, beside the installed ones."""
    more = example_plugins()

    def found(*, group: str) -> Any:
        return [*entry_points(group=group), *more]

    monkeypatch.setattr("distillkit.registry.entry_points.entry_points", found)
    installed.cache_clear()
    yield
    monkeypatch.undo()
    installed.cache_clear()

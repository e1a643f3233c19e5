"""For all tests: CPU threads are those of one recipe alone, and no measurement chooses them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

THREADS = torch.get_num_threads()


@pytest.fixture(autouse=True)
def _no_more_threads() -> Iterator[None]:
    """More threads than free cores make small tensors many times slower."""
    yield
    if torch.get_num_threads() > THREADS:
        torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that are compared bit for bit must not get different numbers by chance."""
    monkeypatch.setattr("distillkit.training.processes._measure", float)

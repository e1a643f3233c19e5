"""For all tests: a recipe's `run.threads` is for its run, and not for the tests after it."""

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

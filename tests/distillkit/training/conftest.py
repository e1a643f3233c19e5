"""What tests of training share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from accelerate.state import AcceleratorState


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one state a process; a test with this sets its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)

"""For all tests: order, threads, and what takes long and is nothing that they look at."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

if "DISTILLKIT_TEST_GPU" not in os.environ:
    # The same suite on every machine: numbers of a GPU differ, and most tests compare numbers.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

THREADS = torch.get_num_threads()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Among several workers, files with slow tests come first: none is left for the end, when the
    other workers have nothing to do."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _no_more_threads() -> Iterator[None]:
    """More threads than free cores make small tensors many times slower."""
    yield
    if torch.get_num_threads() > THREADS:
        torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """What a test draws without a generator of its own must not depend on which ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs that are compared bit for bit must not get different numbers by chance."""
    monkeypatch.setattr("distillkit.training.processes._measure", float)


@pytest.fixture(autouse=True)
def _charts_where_they_matter(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charts take half of the time of a small run: they are drawn by tests of reports and of whole
    recipes, and in processes of their own."""
    if not {"report", "recipes"} & {*request.path.parts}:
        monkeypatch.setattr("distillkit.report.charts.chart", lambda *args, **kwargs: "<svg></svg>")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small run flushes two hundred files, milliseconds each; no test cuts the power."""
    monkeypatch.setattr("os.fsync", lambda handle: None)

"""CPU threads: as given, or by a short measurement, which a resumed run does not repeat."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillkit import api
from distillkit.recipe.schema import Recipe, RunConfig
from distillkit.training import processes
from distillkit.training.callbacks import Callback
from distillkit.training.processes import _measure, set_threads
from tests.distillkit.world import world_recipe


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def on(device: str, num_processes: int = 1) -> Any:
    return SimpleNamespace(device=torch.device(device), num_processes=num_processes)


def measuring(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> list[int]:
    """A machine of two cores on which a number of threads takes so long; what was measured."""
    asked: list[int] = []

    def measure(threads: int) -> float:
        asked.append(threads)
        return seconds[f"n{threads}"]

    torch.set_num_threads(2)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(processes, "_measure", measure)
    return asked


@pytest.mark.parametrize(
    ("one", "two", "best"),
    [
        (0.010, 0.100, 1),  # threads that wait for each other, on a machine that shares its cores
        (0.010, 0.006, 2),
        (0.010, 0.0095, 1),  # a tenth is not worth a core that a neighbour may want
    ],
)
def test_the_fastest_number_is_chosen_and_said(
    one: float, two: float, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = measuring(monkeypatch, n1=one, n2=two)
    said = set_threads(None, on("cpu"))
    assert (asked, torch.get_num_threads()) == ([1, 2], best)
    count = f"{best} thread{'s' if best > 1 else ''}"
    assert said == f", {count} by measurement (1 thread {one * 1000:.0f} ms, 2 threads " + (
        f"{two * 1000:.0f} ms)"
    )


def test_what_is_given_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measuring(monkeypatch)
    assert set_threads(3, on("cpu")) == ", 3 threads as given"
    assert torch.get_num_threads() == 3
    assert set_threads(2, on("cuda")) == ""
    assert torch.get_num_threads() == 2
    assert set_threads(None, on("cuda")) == ""
    assert set_threads(None, on("cpu", num_processes=2)) == ", 2 threads a process"
    assert asked == []


@pytest.mark.parametrize(
    ("step", "passes", "seconds"),
    [
        (0.01, 1 + 5, 0.01),  # the first pass starts the threads, and does not count
        (0.5, 1, 0.5),  # a machine that is busy: measuring must not take long
    ],
)
def test_a_measurement_is_a_mean_or_one_long_pass(
    monkeypatch: pytest.MonkeyPatch, step: float, passes: int, seconds: float
) -> None:
    """The clock goes on by `step` a look, and each pass looks twice."""
    looks: list[float] = []

    def clock() -> float:
        looks.append(step)
        return sum(looks)

    monkeypatch.setattr("distillkit.training.processes.time.perf_counter", clock)
    assert _measure(1) == pytest.approx(seconds)
    assert len(looks) == 2 * passes


class Device(Callback):
    """Keeps the line about the device."""

    line = ""

    def on_message(self, text: str) -> None:
        self.line = text if text.startswith("Device") else self.line


def short(**run: Any) -> Recipe:
    return world_recipe(
        refinement={"type": "bottom-up", "stages": {1: 1}},
        run=RunConfig(batch=2, previews=1, **run),
    )


def test_a_resumed_run_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums depend on it in their last bits."""
    asked, told = measuring(monkeypatch, n1=0.01, n2=0.001), Device()
    run = api.train(short(), tmp_path / "run", callback=told)
    assert told.line.startswith("Device  cpu, 2 threads by measurement (")
    assert json.loads((run.path / "run.json").read_text())["threads"] == 2
    torch.set_num_threads(1)
    asked.clear()
    api.train(short(), tmp_path / "run", resume=True, callback=told)
    assert (asked, torch.get_num_threads(), told.line) == ([], 2, "Device  cpu, 2 threads as given")


def test_a_recipes_number_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, told = measuring(monkeypatch), Device()
    run = api.train(short(threads=1), tmp_path / "run", callback=told)
    assert (asked, told.line) == ([], "Device  cpu, 1 thread as given")
    assert json.loads((run.path / "run.json").read_text())["threads"] == 1

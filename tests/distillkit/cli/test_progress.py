"""Progress lines: they fit the terminal, and long phases tell rate and ETA."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.text import Text

from distillkit.cli.terminal import progress
from distillkit.cli.terminal.progress import ProgressCallback, rate


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_line_fits_the_terminal(width: int) -> None:
    console = Console(width=width, height=20, force_terminal=True, file=io.StringIO())
    made = ProgressCallback(console)
    note = "2-step  1.3 it/s  student 0.123  critic 1.234  critics right 61%  " + "more " * 9
    made.on_progress("training", 50, 2000, note)
    made.on_progress("teacher samples", 3, 4000)
    with console.capture() as capture:
        console.print(made.bar.get_renderable())
    plain = [line for line in Text.from_ansi(capture.get()).plain.split("\n") if line.strip()]
    assert len(plain) == 2  # one a phase: nothing is wrapped
    assert all(len(line) <= width for line in plain)
    assert "50/2000" in plain[0]
    assert "ETA" in plain[0]


def test_without_a_terminal_a_phase_tells_rate_and_eta(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten pictures are there at second 0; 40 more by second 20 are 2 a second; 150 are left."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0] + 100)
    made = ProgressCallback(Console(width=200, force_terminal=False))
    made.on_progress("evaluation", 10, 200, "teacher")
    clock[0] = 20.0
    made.on_progress("evaluation", 50, 200, "start, 1 step")
    clock[0] = 95.0
    made.on_progress("evaluation", 200, 200, "student, 4 steps")
    assert capsys.readouterr().out.splitlines() == [
        "evaluation 10/200  teacher",
        "evaluation 50/200  start, 1 step  2.0/s  ETA 1:15",
        "evaluation 200/200  student, 4 steps  2.0/s",
    ]


def test_rates() -> None:
    assert [rate(speed) for speed in (None, 0.0, 12.34, 0.25)] == ["", "", "12.3/s", "4.0 s each"]

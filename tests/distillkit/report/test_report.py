"""The page: complete, self-contained, and there for an unfinished run too."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.evaluation.grids import save_image, square
from distillkit.report.charts import by_view, phases_of
from distillkit.report.curves import Phase
from distillkit.report.report import write_report
from distillkit.runs.folder import RunFolder, read_log

VOID = {"meta", "img", "br", "input"}


class Page(HTMLParser):
    """Checks that tags are closed, and collects tags, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def row(i: int, phase: str, **more: Any) -> dict[str, Any]:
    blank = {"student": None, "critic": None, "accuracy": {}, "seconds": 0.5, "steps": 1}
    return {"iteration": i, "phase": phase} | blank | more


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of ten iterations: a student's warm-up, then both players."""
    folder = RunFolder(tmp_path / "my <run>")
    folder.create("teacher: {type: world}  # <b>not bold</b>\n", {"mine": "dist 1.0"}, 1)
    for i in range(4):
        folder.append_log(row(i, "student warm-up", student=5.0 - i))
    for i in range(4, 10):
        accuracy = {"global t10": 0.5, "global t500": 0.9, "local mixed t": 0.6}
        folder.append_log(row(i, "1-step", student=0.1 * i, critic=2.0, accuracy=accuracy))
    return folder


def finish(run: RunFolder) -> None:
    rows = {
        "teacher": {"distance": 2.0, "accuracy": 0.9, "detail": -0.1},
        "start": {"distance": 10.0, "accuracy": 0.2, "detail": -0.5},
        "student_1": {"distance": 4.0, "accuracy": 0.8, "detail": 0.0},
        "student_2": {"distance": 3.0, "accuracy": 0.7, "detail": 0.2},
    }
    metrics: dict[str, Any] = {
        key: row | {"mine": 5.0, "num_images": 40} for key, row in rows.items()
    }
    metrics |= {
        "floor_distance": 2.0,
        "summary": {
            "metric": "distance",
            "floor": 2.0,
            "excess": {"start": 8.0, "student_1": 2.0, "student_2": 1.0},
            "excess_ratio": 0.25,
            "floor_half_mean": 3.5,
            "floor_half_spread": 0.75,
        },
        "made_with": {"seed": 77},
        "info": {
            "distance": {"title": "How far", "description": "Not as others'.", "better": "lower"},
            "accuracy": {"title": "How right", "description": "A share.", "better": "higher"},
            "detail": {"title": "How fine", "description": "A ratio.", "better": "teacher"},
        },
    }
    run.metrics.write_text(json.dumps(metrics))
    grid = square(torch.rand(4, 3, 8, 8))
    for path in (run.grids / "compare.png", run.grids / "teacher.png", run.student / "x.png"):
        save_image(grid, path)
    for i in range(12):
        save_image(grid, run.previews / f"{i * 100:08d}.png")


def page(run: RunFolder) -> Page:
    assert write_report(run) == run.report
    return Page(run.report.read_text(encoding="utf-8"))


def test_a_finished_run(run: RunFolder) -> None:
    finish(run)
    found = page(run)
    assert "Finished: 10 iterations in 0 min 5 s, student warm-up, 1-step" in found.text
    assert "The floor is 2.00" in found.text
    assert "it is 3.50 on average and differs by 0.750 between halves" in found.text
    assert "8.00 at the start, 2.00 for the student at one step, a ratio of 0.250" in found.text
    assert "How far of the teacher itself" in found.text
    assert "40 images a row, seed 77" in found.text
    # compare, teacher, and all 12 previews, of which a slider shows one
    assert len(found.of("img")) == 14
    assert [attrs["max"] for attrs in found.of("input")] == ["11"]
    assert "after iteration 0" in found.text
    assert "after iteration 1100" in found.text


def test_the_grid_says_whose_prompts_it_shows(run: RunFolder) -> None:
    """Without metrics they are training's own."""
    save_image(square(torch.rand(4, 3, 8, 8)), run.grids / "compare.png")
    unseen = "in every row, neither of them used in training."
    assert unseen not in page(run).text
    assert "in every row, the prompts of training with other noise: a recipe's" in page(run).text
    finish(run)
    assert unseen in page(run).text


def test_the_best_and_the_worst_of_a_metric_are_marked_in_its_own_direction(run: RunFolder) -> None:
    """The start's detail, -0.5, is the lowest, and the farthest from the teacher's -0.1."""
    finish(run)
    found, text = page(run), run.report.read_text(encoding="utf-8")
    rows = dict(re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", text))
    marks = {name: re.findall(r'<td(?: class="(\w+)"[^>]*)?>', row) for name, row in rows.items()}
    assert marks == {
        "teacher": ["", "", "", ""],
        "start, 1 step": ["worst", "worst", "worst", ""],
        "student, 1 step": ["", "best", "best", ""],
        "student, 2 steps": ["best", "", "", ""],
    }
    for sentence in (
        "How far Not as others'. Lower is better.",
        "How right A share. Higher is better.",
        "How fine A ratio. Closer to the teacher's is better.",
    ):
        assert sentence in found.text


def test_nothing_is_fetched_from_outside(run: RunFolder) -> None:
    finish(run)
    found, text = page(run), run.report.read_text(encoding="utf-8")
    text = re.sub(r'src="data:image/png;base64,[^"]*"', "", text)
    outside = r'https?:|src=|href="(?!#)|//[a-z]|@import|url\((?!#)|<script[^>]|<link'
    assert not re.search(outside, text)
    assert all(str(attrs["src"]).startswith("data:image/png;base64,") for attrs in found.of("img"))
    assert all(attrs.get("alt") for attrs in found.of("img"))


def test_what_the_user_wrote_stays_text(run: RunFolder) -> None:
    found = page(run)
    assert "<b>not bold</b>" in found.text
    assert "my <run>" in found.text
    assert not found.of("b")


def test_an_unfinished_run_and_one_without_a_log(run: RunFolder) -> None:
    assert "Not finished yet: 10 iterations" in page(run).text
    assert "There are no metrics yet" in page(run).text
    # The student's warm-up, student, critics, accuracy.
    assert len(page(run).of("svg")) == 4
    run.log.unlink()
    assert "There are no iterations yet." in page(run).text
    assert not page(run).of("svg")


def test_a_run_without_critics_has_loss_curves_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.create("x: 1", {}, 1)
    folder.append_log(row(0, "1-step", student=1.0))
    assert len(page(folder).of("svg")) == 1
    assert "Loss of the critics" not in page(folder).text


def test_accuracy_is_averaged_over_a_views_noise_levels(run: RunFolder) -> None:
    views = by_view(read_log(run.log), "accuracy")
    assert set(views) == {"global", "local"}
    assert views["global"][4] == pytest.approx(0.7)
    assert views["local"] == dict.fromkeys(range(4, 10), 0.6)


def test_phases(run: RunFolder) -> None:
    log = read_log(run.log)
    assert phases_of(log) == [Phase("student warm-up", 0, 4), Phase("1-step", 4, 10)]

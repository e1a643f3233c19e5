"""`distillkit compare` and `report` on folders written by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from distillkit.evaluation.pictures import PictureFolder
from distillkit.runs.folder import RunFolder
from tests.distillkit.launch import told

INFO = {
    "right": {"title": "right", "description": "A share.", "better": "higher"},
    "far": {"title": "far", "description": "A distance.", "better": "lower"},
    "fine": {"title": "fine", "description": "A ratio.", "better": "teacher"},
}


def made(folder: Path, seed: int, right: list[float], far: float, fine: float, lr: float) -> Path:
    """A run with one row of the student, its pictures' own values and two pictures."""
    run = RunFolder(folder)
    run.create(f"optim: {{lr: {lr}}}\nrun: {{batch: 1, seed: {seed}}}\n", {}, 1)
    row = {"right": sum(right) / len(right), "far": far, "fine": fine, "num_images": len(right)}
    teacher = {"right": 0.9, "far": 1.0, "fine": 1.0, "num_images": len(right)}
    metrics = {"teacher": teacher, "student_1": row, "info": INFO}
    run.metrics.write_text(json.dumps(metrics))
    singles = {
        "seed": 7,
        "prompts": list("abcd"[: len(right)]),
        "rows": {"student_1": {"right": right}},
    }
    (folder / "per_picture.json").write_text(json.dumps(singles))
    for n in range(2):
        PictureFolder(folder / "pictures" / "student_1", range(2)).write(n, torch.rand(3, 4, 4))
    return folder


def test_runs_of_two_recipes_with_three_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second recipe is farther in every seed, nearer to the teacher's detail on one side and
    farther on the other, and right in the same pictures and one more."""
    runs = [
        made(tmp_path / f"low-{s}", s, [1, 0, 0, 1], 2.0 + s, 0.8, 1e-5) for s in (0, 1, 2)
    ] + [
        made(tmp_path / f"high-{s}", s, [1, 1, 0, 1], 3.0 + s, 1.1, 1e-4) for s in (2, 1, 0)
    ]  # fmt: skip
    page = tmp_path / "page.html"
    out = told(0, "compare", *runs, "--out", page, capsys=capsys)
    assert "low-0 (+ 2 seeds)" in out
    assert "high-2 (+ 2 seeds)" in out
    lines = [re.sub(r"\s+", " ", line).strip() for line in out.splitlines()]
    # Paired by seed, each is farther by exactly 1, though seeds differ by more than that.
    assert "far 3.00 4.00 +1 [+1, +1] worse" in lines
    # Distances to the teacher's 1: 0.2, and 0.1 on its other side.
    assert any(line.startswith("fine 0.800 1.10 -0.1 [-0.1, -0.1] better") for line in lines)
    # One of four pictures is better by 1: 0.25 +- 3.182 x 0.25.
    assert "student, 1 step right 0.500 0.750 +0.25 [-0.545, +1.05] not distinguishable" in lines
    assert "fine: nearer to the teacher's is better, so the difference is of" in out
    html = page.read_text()
    assert html.count("<img ") == 2 * 2  # of two groups; the teacher's row has none
    assert 'class="worse"' in html
    assert not re.search(r'src="(?!data:)|https?:', html)


def test_seeds_of_one_recipe_stand_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [made(tmp_path / f"r{s}", s, [1, 0, 1, 1], 2.0 + s, 1.0, 1e-5) for s in (0, 1)]
    out = told(0, "compare", *runs, "--out", tmp_path / "c.html", "--metrics", "far", capsys=capsys)
    assert "+1 (no interval)" in out
    assert "No interval: the metric has no values of single pictures, and one run" in out
    assert "one run of a recipe does not tell" in (tmp_path / "c.html").read_text()
    assert "right" not in out


def test_rows_that_were_judged_otherwise_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two seeds of one recipe, three of the other, of which one was judged on fewer pictures."""
    pictures = {0: [1.0, 0, 0, 1], 1: [1.0, 0, 0, 1], 2: [1.0, 0]}
    runs = [made(tmp_path / f"a{s}", s, pictures[0], 2.0 + s, 1.0, 1e-5) for s in (0, 1)]
    runs += [made(tmp_path / f"b{s}", s, pictures[s], 3.0 + s, 1.0, 1e-4) for s in (0, 1, 2)]
    page = ("--out", tmp_path / "c.html")
    out = re.sub(r"\s+", " ", told(0, "compare", *runs, *page, capsys=capsys))
    assert "b0 (+ 2 seeds) - a0 (+ 1 seed): over the seeds that both have, 0, 1." in out
    assert "Judged on 2, 4 pictures" in out
    runs = [runs[0], runs[-1]]
    out = re.sub(r"\s+", " ", told(0, "compare", *runs, *page, capsys=capsys))
    assert "far 2.00 5.00 +3 (no interval)" in out
    assert "`distillkit eval --count N` gives both as many" in out


def test_tables_for_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of one run, and of seeds of one recipe, which are one group here; no page is written."""
    runs = [made(tmp_path / f"r{s}", s, [1, 0, 1, 1], 2.0 + s, 1.0 - s, 1e-5) for s in (0, 1)]
    page = tmp_path / "c.html"
    options = ("--format", "markdown", "--out", page)
    assert told(0, "compare", runs[0], *options, capsys=capsys).splitlines() == [
        "| Model | Steps | right (↑) | far (↓) | fine (≈ teacher) |",
        "| :--- | :--- | :--- | :--- | :--- |",
        "| teacher | – | 0.900 | 1.00 | 1.00 |",
        "| student | 1 | 0.750 | 2.00 | 1.00 |",
    ]
    options = (*options, "--metrics", "far,fine", "--rows", "student_1")
    assert told(0, "compare", *runs, *options, capsys=capsys).splitlines()[2:] == [
        "| student | 1 | 2.50 (2.00 to 3.00) | 0.500 (0.00000 to 1.00) |",
    ]
    assert not page.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "{run}"], "compare: name at least two runs"),
        (["compare", "{run}", "{run}", "--out", "x"], "--out x: the page's name ends in .html"),
        (["compare", "{run}", "gone"], "gone has no metrics.json with rows: name runs that are"),
        (
            ["compare", "{run}", "{run}", "--out", "{run}/c.html", "--metrics", "x"],
            "--metrics x: these runs share right, far, fine",
        ),
        (["report", "gone"], "gone is not a run folder: it has no recipe.yaml."),
    ],
)
def test_what_they_refuse(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path / "run", 0, [1, 0], 1.0, 1.0, 1e-5)
    assert said in told(2, *(word.format(run=run) for word in words), capsys=capsys)


def test_a_finished_run_without_metrics_is_told_how_to_make_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(made(tmp_path / "run", 0, [1, 0], 1.0, 1.0, 1e-5))
    run.metrics.unlink()
    words = ("compare", run.path, run.path)
    assert "has no metrics.json with rows: name runs that are" in told(2, *words, capsys=capsys)
    run.student.mkdir()
    assert told(2, *words, capsys=capsys) == (
        f"{run.path} is finished, and its recipe has no metrics: measure it by `distillkit eval "
        f"{run.path} --prompts FILE --metrics NAME`, and name {run.path}/eval here\n"
    )
    # One that was stopped in its evaluation will have some.
    run.recipe.write_text("metrics: [{type: example}]")
    assert "has no metrics.json with rows: name runs that are" in told(2, *words, capsys=capsys)


def test_a_report_at_any_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    run.create("teacher: x\n", {}, 1)
    out = told(0, "report", run.path, capsys=capsys)
    assert out.strip() == str(run.report)
    assert "Not finished yet" in run.report.read_text()

"""The table over seeds: what it prints of runs that are there, without making them again."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "seeds.py"


def test_the_table_has_means_and_extremes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second recipe is farther by 0.1 in one seed, and by 0.3 in the other: 0.2 in the mean."""
    info = {"far": {"title": "How far", "description": "", "better": "lower"}}
    for name, distances in (("mine", {3: 0.2, 5: 0.4}), ("other", {3: 0.3, 5: 0.7})):
        for seed, distance in distances.items():
            run = tmp_path / f"{name}-{seed}"
            run.mkdir()
            (run / "recipe.yaml").write_text(f"teacher: {{type: {name}}}\nrun: {{seed: {seed}}}\n")
            row = {"far": distance, "num_images": 4}
            metrics = {"teacher": {"far": 0.1}, "student_1": row, "info": info}
            metrics |= {"summary": {"excess_ratio": distance / 2}}
            (run / "metrics.json").write_text(json.dumps(metrics))
    words = ["a/mine.yaml", "b/other.yaml", "--seeds", "3", "5", "--out", str(tmp_path)]
    runpy.run_path(str(SCRIPT))["main"](words)
    lines = capsys.readouterr().out.splitlines()
    mine, other = "mine-3 (+ 1 seed)", "other-3 (+ 1 seed)"
    assert lines[:6] == [
        "| Run | Model | Steps | How far (↓) |",
        "| :--- | :--- | :--- | :--- |",
        f"| {mine} | teacher | – | 0.100 (0.100 to 0.100) |",
        f"| {mine} | student | 1 | 0.300 (0.200 to 0.400) |",
        f"| {other} | teacher | – | 0.100 (0.100 to 0.100) |",
        f"| {other} | student | 1 | 0.500 (0.300 to 0.700) |",
    ]
    left = "0.150 (0.100 to 0.200) of the start's distance above the floor is left."
    assert f"{mine}: at one step {left}" in lines
    assert (
        "| student, 1 step | How far | 0.300 | 0.500 | +0.2 [-1.07, +1.47] not distinguishable |"
        in lines
    )

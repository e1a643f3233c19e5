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
    for seed, distance in ((3, 0.2), (5, 0.4)):
        row = {"caption_accuracy": 0.9, "frechet_teacher": distance, "sharpness_ratio": 1.0}
        metrics = {"teacher": row, "student_1": row, "summary": {"excess_ratio": distance / 2}}
        run = tmp_path / f"mine-{seed}"
        run.mkdir()
        (run / "metrics.json").write_text(json.dumps(metrics))
    runpy.run_path(str(SCRIPT))["main"](
        ["a/mine.yaml", "--seeds", "3", "5", "--out", str(tmp_path)]
    )
    head, rule, teacher, student = capsys.readouterr().out.splitlines()
    assert head == "| recipe | row | captions | Fréchet to teacher | sharpness | ratio |"
    assert rule.count("|") == head.count("|")
    distance = "0.300 (0.200 to 0.400)"
    same = "0.900 (0.900 to 0.900)", distance, "1.000 (1.000 to 1.000)"
    assert teacher == f"| mine | teacher | {' | '.join(same)} |  |"
    assert student == f"| mine | student_1 | {' | '.join(same)} | 0.150 (0.100 to 0.200) |"

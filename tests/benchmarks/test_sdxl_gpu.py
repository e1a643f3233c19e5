"""The SDXL benchmark goes through on a CPU with a small model, and holds the plan to account."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sdxl_gpu.py"


@pytest.mark.slow
def test_a_tiny_model_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Weights are counted exactly; the peak of a real iteration is within a tenth of the plan's."""
    out = tmp_path / "result.json"
    words = ["--tiny", "--repeats", "1", "--out", str(out)]
    words += ["--set", "teacher.steps=1"]
    variants = ("the recipe", "without its switches", "LoRA")
    for variant in variants:
        words += ["--only", variant]
    runpy.run_path(str(SCRIPT))["main"](words)
    result = json.loads(out.read_text())
    assert list(result["variants"]) == list(variants)
    for name, row in result["variants"].items():
        assert row["flops_per_second"] > 0
        assert row["ratio"] == pytest.approx(1, abs=0.1), name
    bare = result["variants"]["without its switches"]
    assert bare["planned"]["weights"] == bare["measured"]["weights"]
    assert "the recipe" in capsys.readouterr().out

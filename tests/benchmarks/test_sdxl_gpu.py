"""The SDXL benchmark goes through on a CPU with a small model, and holds the plan to account."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sdxl_gpu.py"


@pytest.mark.slow
def test_a_tiny_model_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights are counted exactly; the peak of a real iteration is within a tenth of the plan's."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    out = tmp_path / "result.json"
    words = ["--tiny", "--repeats", "1", "--out", str(out)]
    words += ["--set", "teacher.steps=1", "--measure-only"]
    variants = ("the recipe", "without its switches", "LoRA")
    for variant in variants:
        words += ["--only", variant]
    main = runpy.run_path(str(SCRIPT))["main"]
    main(words)
    assert "planned" not in json.loads(out.read_text())["variants"]["LoRA"]
    main(["--plan-only", "--out", str(out)])
    result = json.loads(out.read_text())
    assert set(result["variants"]) == set(variants)
    for name, row in result["variants"].items():
        assert row["flops_per_second"] > 0
        assert row["ratio"] == pytest.approx(1, abs=0.1), name
        assert sum(row["seconds_by_part"].values()) == pytest.approx(row["seconds"])
        assert row["seconds_by_part"]["student: backward"] > 0
        peaks = row["peak_by_part"]
        for part in ("teacher", "student"):
            assert peaks["measured"][part] == pytest.approx(peaks["planned"][part], rel=0.1), part
    bare = result["variants"]["without its switches"]
    assert bare["planned"]["weights"] == bare["measured"]["weights"]
    assert "the recipe" in capsys.readouterr().out


@pytest.mark.slow
def test_the_unet_alone_on_a_cpu(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    script = runpy.run_path(str(SCRIPT.with_name("unet_gpu.py")))
    script["main"](["--tiny", "--backend", "eager"])
    assert counters["stats"]["unique_graphs"] >= 3
    torch.compiler.reset()
    rows = capsys.readouterr().out.splitlines()
    assert [row.split(":")[0] for row in rows] == ["one by one"] * 4 + ["layers compiled"] * 4
    assert "layers compiled: to weights, batch 5" in rows[-1]

"""Two processes with half a student each: the run's pictures, metrics and folder are whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distillkit.runs.folder import read_log

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow

TINY = (
    "run.parallel=fsdp2", "run.batch=2", "run.threads=1", "run.preview_every=1", "run.previews=2",
    "run.held_out=0", "warmup.critic=1", "refinement.stages={4: 1}", "critics={}",
    "backbone={type: unet-encoder}", "pool={type: dynamic, levels: [2, 9], width: 16, depth: 1}",
    "metrics.num_images=4",
)  # fmt: skip


def test_a_sharded_run_ends_with_metrics_and_a_published_student(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [
        "-m",
        "distillkit",
        "run",
        "recipes/nitro_shapes.yaml",
        "--out",
        str(tmp_path / "r"),
    ]
    changes = [part for change in TINY for part in ("--set", change)]
    done = subprocess.run(
        [*command, *changes], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "r"
    assert sum(line.startswith("Recipe") for line in done.stdout.splitlines()) == 1
    assert [row["iteration"] for row in read_log(run / "log.jsonl")] == [0, 1]
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["student_4"]["num_images"] == 4
    assert len(list((run / "previews").glob("*.png"))) == 2
    snapshot = load_file(run / "snapshots" / "4-step.safetensors")
    published = load_file(run / "student" / "unet" / "diffusion_pytorch_model.safetensors")
    assert snapshot.keys() == published.keys()
    for name, weight in snapshot.items():
        torch.testing.assert_close(published[name], weight.to(published[name].dtype), msg=name)

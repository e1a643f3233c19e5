"""A launch of two processes is one run; where they disagree, both stop with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distillkit.runs.folder import read_log

ROOT = Path(__file__).parents[4]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
pytestmark = pytest.mark.slow

TINY = (
    "run.batch=2", "run.threads=1", "run.preview_every=9", "warmup.critic=1",
    "refinement.stages={1: 3}", "metrics.num_images=12", "run.held_out=0",
)  # fmt: skip


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    """Two processes on the CPU, without what accelerate would read of the environment."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("ACCELERATE_")}
    known |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, "-m", *command],
        cwd=ROOT, env=known, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


def test_a_launch_without_cuda_is_one_run(tmp_path: Path) -> None:
    """One process tells of it, and each iteration is logged once."""
    changes = [part for change in TINY for part in ("--set", change)]
    recipe = "recipes/nitro_shapes.yaml"
    done = launch("distillkit", "run", recipe, "--out", str(tmp_path / "run"), *changes)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("Recipe")] == [f"Recipe  {recipe}"]
    assert sum(line.startswith("Device") for line in lines) == 1
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ("pick", "the heads to reset"),
        ("draw", "the drawn heads"),
        ("reset", "the heads' weights"),
    ],
)
def test_parts_that_differ_by_process_stop_all_of_them(
    tmp_path: Path, parts: str, what: str
) -> None:
    world = "tests.distillkit.training.processes.train_world"
    done = launch(world, str(tmp_path), "--batch", "2", "--disagree", parts)
    assert done.returncode != 0
    for rank in range(2):
        said = f"rank {rank} stopped: Process 1 disagrees with process 0 on {what}. Parts must"
        assert said in done.stdout, done.stdout + done.stderr[-3000:]
    assert not list((tmp_path / "checkpoints").glob("0*"))

"""`torchrun -m distillkit run`: a launch of two processes is one run, and shares its evaluation;
`distillkit eval` shares the drawing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.recipe.load import dump_recipe
from distillkit.recipe.schema import RunConfig
from distillkit.runs.folder import read_log
from tests.distillkit.launch import with_examples
from tests.distillkit.world import world_recipe

pytestmark = pytest.mark.slow


def test_a_launch_without_cuda_is_one_run(tmp_path: Path) -> None:
    """One process tells of it, and each iteration is logged once. The environment lacks what
    accelerate would read there."""
    recipe = world_recipe(
        refinement={"type": "bottom-up", "stages": {1: 3}},
        metrics=ExampleMetricsConfig(num_images=12),
        run=RunConfig(batch=2, threads=1),
    )
    (tmp_path / "mine.yaml").write_text(dump_recipe(recipe))
    known = with_examples(tmp_path / "installed") | {"CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, "-m", "distillkit", "run", "mine.yaml", "--out", "run"],
        cwd=tmp_path,
        env={name: value for name, value in known.items() if not name.startswith("ACCELERATE_")},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("Recipe")] == ["Recipe  mine.yaml"]
    assert sum(line.startswith("Device") for line in lines) == 1
    rows = read_log(tmp_path / "run" / "log.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2]
    assert (tmp_path / "run" / "report.html").is_file()

    # Of five rows of 12 pictures the main process drew three, and the reference: a bar of its own.
    assert "evaluation, own rows 48/48" in done.stdout
    assert "evaluation 48/48" not in done.stdout
    shared = (tmp_path / "run" / "metrics.json").read_text()
    for made in ("figures", "grids", "pictures"):
        shutil.rmtree(tmp_path / "run" / made)
    again = "-m distillkit run mine.yaml --out run --resume --set run.batch=4"
    done = subprocess.run(
        [sys.executable, *again.split()],
        cwd=tmp_path, env=known, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == json.loads(shared)

    (tmp_path / "prompts.txt").write_text("a red ring\na blue disc\n")
    judged = "-m distillkit eval run --prompts prompts.txt --steps 1 --count 5 --batch 1"
    done = subprocess.run(
        [*torchrun, *judged.split()],
        cwd=tmp_path, env=known, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    drawn = (tmp_path / "run" / "eval" / "pictures" / "student_1").glob("0*.png")
    assert len(list(drawn)) == 5

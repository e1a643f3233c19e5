"""The transformer's recipe, made short: it is stopped, goes on, and publishes a stock pipeline."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillkit.cli.terminal.progress import ProgressCallback
from distillkit.runs.folder import read_log
from tests.distillkit.launch import command

RECIPE = "recipes/nitro_shapes_dit.yaml"
SHORT = {
    "prompts.count": 16,
    "samples.count": 6,
    "samples.batch": 6,
    "teacher.steps": 1,
    "warmup.student": 1,
    "warmup.critic": 1,
    "refinement.stages": "{1: 1, 2: 1}",
    "run.batch": 2,
    "run.held_out": 2,
    "run.previews": 2,
    "metrics.num_images": 4,
}


def run(cache: Path, out: Path, *more: str) -> int:
    short = SHORT | {"samples.cache": cache}
    flags = [word for key, value in short.items() for word in ("--set", f"{key}={value}")]
    return command("run", RECIPE, "--out", out, *flags, *more)


@pytest.mark.slow
def test_a_stopped_run_goes_on_and_publishes_its_last_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ProgressCallback.on_iteration

    def stop(self: Any, i: int, *args: Any) -> None:
        told(self, i, *args)
        if i == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    cache, broken = tmp_path / "cache", tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(ProgressCallback, "on_iteration", stop)
        assert run(cache, broken) == 130
    assert run(cache, broken, "--resume") == 0

    phases = [row["phase"] for row in read_log(broken / "log.jsonl")]
    assert phases == ["student warm-up", "critic warm-up", "1-step", "2-step"]
    snapshots = [broken / "snapshots" / f"{n}.safetensors" for n in ("start", "1-step", "2-step")]
    start, *_, last = (load_file(file) for file in snapshots)
    assert not all(torch.equal(start[name], last[name]) for name in last)

    import diffusers

    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(
        broken / "student", dtype=torch.float32, text_encoder_3=None, tokenizer_3=None
    )
    published = dict(pipe.transformer.named_parameters())
    assert all(torch.equal(published[name], last[name]) for name in last)


def test_a_plan_knows_its_sizes_without_its_weights(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten blocks of 128 units have 5.9 million weights."""
    assert command("plan", RECIPE) == 0
    student = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("student "))
    assert student.split()[1] == "5.9"

"""The family through the whole machine: a run of a few iterations, and what leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillkit.cli import main
from distillkit.evaluation.sampling import sample

RECIPE = """\
prompts: {{type: list, prompts: [a ring, two bars]}}
teacher: {{type: sdxl, model: {model}, dtype: float32, steps: 2}}
student: {{type: unet, train: {train}, rank: 2, timestep_shift: 500, ema: 0.5}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, timesteps: [10, 500], heads_per_slot: 1, width: 16, depth: 1}}
refresh: {{type: random, fraction: 0.1}}
losses: [{{type: hinge}}]
warmup: {{student: 2, losses: [{{type: regression}}]}}
refinement: {{type: bottom-up, stages: {{1: 2, 2: 1}}}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run: {{batch: 2, previews: 2, preview_every: 100, checkpoint_every: 2, threads: 1}}
"""


def command(*words: Any) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_run_ends_with_files_that_leave(tiny_sdxl: Path, tmp_path: Path, train: str) -> None:
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(model=tiny_sdxl, train=train))
    assert command("run", recipe, "--out", run) == 0
    assert command("export", run, "--to", "unet", "--dtype", "fp32") == 0
    unet = run / "exports/student-unet.safetensors"
    start = load_file(tiny_sdxl / "unet/diffusion_pytorch_model.safetensors")
    learnt = load_file(unet)
    assert learnt.keys() == start.keys()
    assert any(not torch.equal(learnt[name], start[name]) for name in start)
    moved_alone = torch.equal(learnt["conv_in.weight"], start["conv_in.weight"])
    assert moved_alone == (train == "lora")
    snapshot = load_file(run / "snapshots/2-step.safetensors")
    assert all(name.startswith("lora.") for name in snapshot) == (train == "lora")
    ours = sample(str(run), "a ring", 2, seed=3)
    theirs = sample(str(tiny_sdxl), "a ring", 2, seed=3, unet=str(unet))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    published = load_file(run / "student/unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(published[name], learnt[name]) for name in learnt)

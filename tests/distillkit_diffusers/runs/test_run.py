"""The family from end to end: a run of a few iterations, its published folder, its export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distillkit.evaluation.sampling import sample
from tests.distillkit.launch import command
from tests.distillkit_diffusers.tiny import UNET_FILE

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


@pytest.mark.slow
@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_finished_run_is_published_and_exported(
    tiny_sdxl: Path, tmp_path: Path, train: str
) -> None:
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe.write_text(RECIPE.format(model=tiny_sdxl, train=train))
    assert command("run", recipe, "--out", run) == 0
    assert command("export", run, "--to", "unet", "--set", "dtype=fp32") == 0
    unet = run / "exports/student-unet.safetensors"
    start = load_file(tiny_sdxl / UNET_FILE)
    learnt = load_file(unet)
    assert learnt.keys() == start.keys()
    assert any(not torch.equal(learnt[name], start[name]) for name in start)
    moved_alone = torch.equal(learnt["conv_in.weight"], start["conv_in.weight"])
    assert moved_alone == (train == "lora")
    snapshot = load_file(run / "snapshots/2-step.safetensors")
    assert all(name.startswith("lora.") for name in snapshot) == (train == "lora")
    ours = sample(run, "a ring", steps=2, seed=3)
    theirs = sample(tiny_sdxl, "a ring", steps=2, seed=3, weights=str(unet))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    published = load_file(run / "student" / UNET_FILE)
    assert all(torch.equal(published[name], learnt[name]) for name in learnt)

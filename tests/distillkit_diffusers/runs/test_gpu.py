"""What only a GPU can show, on small models: DISTILLKIT_TEST_GPU=1 pytest tests -m gpu"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillkit.runs.folder import read_log
from distillkit.values import sent
from distillkit_diffusers.configs import SDXLTeacherConfig
from tests.distillkit.launch import command
from tests.distillkit_diffusers.tiny import UNET_FILE

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or not asked for one"),
]

RECIPE = """\
prompts: {{type: list, prompts: [a ring, two bars]}}
teacher: {{type: sdxl, model: {model}, dtype: bfloat16, steps: 2, offload: [text_encoders, vae]}}
student:
  {{type: unet, start: {start}, train: {train}, rank: 2, timestep_shift: 500, ema: 0.5}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, timesteps: [10, 500], heads_per_slot: 1, width: 16, depth: 1}}
refresh: {{type: random, fraction: 0.1}}
losses: [{{type: hinge}}]
refinement: {{type: bottom-up, stages: {{1: {first}, 2: 6}}}}
optim: {{student: {{lr: 1.0e-2}}, critic: {{lr: 1.0e-2}}}}
run:
  {{batch: 2, accumulate: 2, precision: bf16, offload_heads: true, offload_ema: true, previews: 2,
  preview_every: 100, checkpoint_every: 2}}
"""


def test_a_view_that_repeats_an_element_is_sent() -> None:
    found = sent(torch.arange(3.0)[:, None].expand(3, 2), "cuda")
    assert found.is_cuda
    assert found.tolist() == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.parametrize("bits", [4, 8, None])
@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_run_with_all_that_saves_memory(
    tiny_sdxl: Path, tmp_path: Path, train: str, bits: int | None
) -> None:
    """The student starts from a file of its own, as published one-step weights are."""
    recipe, run = tmp_path / "tiny.yaml", tmp_path / "run"
    fields: dict[str, Any] = {"model": tiny_sdxl, "start": tiny_sdxl / UNET_FILE, "train": train}
    recipe.write_text(RECIPE.format(**fields, first=2))
    more = [] if bits is None else ["--set", f"teacher.bits={bits}"]
    assert command("run", recipe, "--out", run, *more) == 0
    assert [row["iteration"] for row in read_log(run / "log.jsonl")] == list(range(8))


def test_a_killed_run_goes_on_bit_for_bit(tiny_sdxl: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE.format(model=tiny_sdxl, start="teacher", train="full", first=20))
    runs = [tmp_path / "whole", tmp_path / "killed"]
    assert command("run", recipe, "--out", runs[0]) == 0
    words = [sys.executable, "-m", "distillkit", "run", recipe, "--out", runs[1]]
    with subprocess.Popen(words) as process:
        while not (runs[1] / "checkpoints").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert len(read_log(runs[1] / "log.jsonl")) < 26
    assert command("run", recipe, "--out", runs[1], "--resume") == 0
    whole, killed = (load_file(run / "student" / UNET_FILE) for run in runs)
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_offloaded_networks_visit_the_device_and_are_not_copied_back(tiny_sdxl: Path) -> None:
    config = SDXLTeacherConfig(model=str(tiny_sdxl), offload=("text_encoders", "vae"))
    teacher: Any = config.build()
    teacher.to(torch.device("cuda", 0))
    first = teacher.encode(["a ring"])
    homes = [p.data_ptr() for m in teacher.offloaded() for p in m.parameters()]
    second = teacher.encode(["a ring"])
    weights = [p for m in teacher.offloaded() for p in m.parameters()]
    assert [p.data_ptr() for p in weights] == homes
    assert all(p.device.type == "cpu" for p in weights)
    assert all(p.is_pinned() for p in teacher.pipe.text_encoder.parameters())
    for name, values in first.tensors.items():
        assert values.is_cuda
        assert torch.equal(values, second.tensors[name])

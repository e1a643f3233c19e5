"""kill -9 in the middle of a run, then resume: bit for bit what an unbroken run gives."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from tests.distillkit.training.processes import train_world

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.slow


STAGES = "--every 2 --stages 30,30"


def start(job: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", train_world.__name__, job], cwd=ROOT)


@pytest.mark.usefixtures("fresh_accelerate")
def test_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train_world.train(f"{tmp_path}/whole {STAGES}", Accelerator(cpu=True))
    broken, log = f"{tmp_path}/broken {STAGES}", tmp_path / "broken" / "log.jsonl"
    for lines, extra in ((9, ""), (33, " --resume")):
        process = start(broken + extra)
        deadline = time.monotonic() + 200
        while not log.exists() or log.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    train_world.train(f"{broken} --resume", Accelerator(cpu=True))
    whole, resumed = (load_file(tmp_path / n / "rank0.safetensors") for n in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []

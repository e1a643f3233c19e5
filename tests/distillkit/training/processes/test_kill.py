"""kill -9 in the middle of a run, then resume: bit for bit what an unbroken run gives."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.slow


def start(folder: Path, *extra: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "tests.distillkit.training.processes.train_world",
        str(folder),
        "--every",
        "2",
    ]
    return subprocess.Popen([*command, "--stages", "60,60", *extra], cwd=ROOT)


def test_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    assert start(tmp_path / "whole").wait(200) == 0
    broken, log = tmp_path / "broken", tmp_path / "broken" / "log.jsonl"
    for lines, extra in ((31, []), (77, ["--resume"])):
        process = start(broken, *extra)
        deadline = time.monotonic() + 200
        while not log.exists() or log.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert start(broken, "--resume").wait(200) == 0
    whole, resumed = (load_file(tmp_path / n / "rank0.safetensors") for n in ("whole", "broken"))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []

"""Two processes are one: the same heads drawn and refreshed, the same weights as a larger batch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.slow


def train(folder: Path, processes: int, batch: int, *extra: str) -> list[dict[str, Tensor]]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [
        *torchrun,
        "--nproc_per_node",
        str(processes),
        "-m",
        "tests.distillkit.training.processes.train_world",
    ]
    done = subprocess.run(
        [*command, str(folder), "--batch", str(batch), *extra],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"ranks: {processes}" in done.stdout
    shares = [float(share) for share in re.findall(r"holds (\S+) of the student", done.stdout)]
    assert len(shares) == (processes if "fsdp2" in extra and processes > 1 else 0)
    assert all(share < 0.75 for share in shares)
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(processes)]


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=2e-5, msg=name)


def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path) -> None:
    [whole] = train(tmp_path / "one", 1, 8)
    first, second = train(tmp_path / "two", 2, 4)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert_close(whole, first)
    # A checkpoint of two processes is resumed by one, and the other way round.
    [from_two] = train(tmp_path / "two", 1, 8, "--resume", "--stages", "3,4")
    from_one, _ = train(tmp_path / "one", 2, 4, "--resume", "--stages", "3,4")
    assert_close(from_two, from_one)


def test_shards_equal_copies(tmp_path: Path) -> None:
    """FSDP2: the student's weights, moments and average are cut over both processes."""
    shards = ("--parallel", "fsdp2")
    [whole] = train(tmp_path / "one", 1, 8)
    first, second = train(tmp_path / "two", 2, 2, "--accumulate", "2", *shards)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert_close(whole, first)
    [from_two] = train(tmp_path / "two", 1, 8, "--resume", "--stages", "3,4", *shards)
    from_one, _ = train(tmp_path / "one", 2, 4, "--resume", "--stages", "3,4", *shards)
    assert_close(from_two, from_one)


def test_compiled_copies_equal_one_that_is_not(tmp_path: Path) -> None:
    [plain] = train(tmp_path / "one", 1, 4)
    first, second = train(tmp_path / "two", 2, 2, "--compile", "eager")
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert_close(plain, first)


def test_pictures_with_heads_of_their_own_are_shared_among_processes(tmp_path: Path) -> None:
    """A process may have no picture of a view; its heads are stepped there all the same. Samples of
    the teacher that are used twice come again in the process that made them."""
    how = ("--draw", "per-picture", "--updates", "alternating", "--stages", "4,1", "--uses", "2")
    [whole] = train(tmp_path / "one", 1, 4, *how)
    first, second = train(tmp_path / "two", 2, 2, *how)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert_close(whole, first)

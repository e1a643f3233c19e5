"""Two processes are one: the same heads drawn and refreshed, the same weights as a larger batch.

Where they disagree, both stop with the reason. Two processes are launched once, for all of it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor

from distillkit.runs.folder import read_log
from tests.distillkit.training.processes import train_world

ROOT = Path(__file__).parents[4]
pytestmark = pytest.mark.slow

LONGER = "--resume --stages 3,4"
SHARDS = "--parallel fsdp2"
OWN_HEADS = "--draw per-picture --updates alternating --stages 4,1 --uses 2"
DISAGREE = {
    "pick": "the heads to reset",
    "draw": "the drawn heads",
    "reset": "the heads' weights",
}


@dataclass
class Worlds:
    """A folder a job, and what two processes printed."""

    folder: Path
    printed: str = ""

    def one_process(self, *jobs: str) -> None:
        """Train in this process."""
        AcceleratorState._reset_state(reset_partial_state=True)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        for job in jobs:
            train_world.train(f"{self.folder}/{job}", Accelerator(cpu=True))
        torch.set_num_threads(threads)
        AcceleratorState._reset_state(reset_partial_state=True)

    def two_processes(self, *jobs: str) -> None:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*torchrun, "--nproc_per_node=2", "-m", train_world.__name__]
        done = subprocess.run(
            [*command, *(f"{self.folder}/{job}" for job in jobs)],
            cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        self.printed = done.stdout

    def copy(self, name: str, to: str) -> None:
        kept = shutil.ignore_patterns("rank*")
        shutil.copytree(self.folder / name, self.folder / to, ignore=kept)

    def end(self, name: str) -> dict[str, Tensor]:
        """What the only process ended with, or both of them bit for bit."""
        first, *others = (load_file(p) for p in sorted((self.folder / name).glob("rank?.*")))
        for other in others:
            assert first.keys() == other.keys()
            assert [key for key in first if not torch.equal(first[key], other[key])] == []
        return first

    def end_of_two(self, name: str) -> dict[str, Tensor]:
        for rank in range(2):
            assert f"{name} rank {rank} of 2 is done" in self.printed
        return self.end(name)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    """A checkpoint of two processes is resumed by one, and the other way round."""
    made = Worlds(tmp_path_factory.mktemp("worlds"))
    made.one_process("one --batch 8", f"own-heads-one --batch 4 {OWN_HEADS}")
    made.copy("one", "one-by-two")
    made.copy("one", "one-by-shards")
    made.two_processes(
        "two --batch 4",
        f"one-by-two --batch 4 {LONGER}",
        f"shards --batch 2 --accumulate 2 {SHARDS}",
        f"one-by-shards --batch 4 {LONGER} {SHARDS}",
        f"own-heads-two --batch 2 {OWN_HEADS}",
        "compiled --batch 4 --compile eager",
        "told --batch 4 --told 1",
        *(f"{parts} --batch 2 --disagree {parts}" for parts in DISAGREE),
    )
    made.copy("two", "two-by-one")
    made.copy("told", "told-by-one")
    made.copy("shards", "shards-by-one")
    made.one_process(
        f"two-by-one --batch 8 {LONGER}",
        f"shards-by-one --batch 8 {LONGER} {SHARDS}",
        "told-by-one --batch 8 --resume",
    )
    return made


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Tensor by tensor, within a hundredth of its norm; a sum in the place of a mean is all of it.

    Single values may be farther, by CPU: where a gradient is near nothing, Adam's step makes some
    of the rate of how a sum was rounded.
    """
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        apart = (other[name].double() - tensor.double()).norm()
        assert float(apart) <= 1e-2 * float(tensor.double().norm()) + 1e-7, name


def test_two_processes_equal_one_with_the_same_global_batch(worlds: Worlds) -> None:
    assert_close(worlds.end("one"), worlds.end_of_two("two"))
    assert_close(worlds.end("two-by-one"), worlds.end_of_two("one-by-two"))


def test_two_processes_log_what_one_does(worlds: Worlds) -> None:
    """Losses, norms, pulls: in the student's warm-up, and in every iteration after it."""
    one, two = (read_log(worlds.folder / name / "log.jsonl") for name in ("one", "two"))
    assert [row["phase"] for row in one][:2] == ["student warm-up", "1-step"]
    for row, other in zip(one, two, strict=True):
        for what in ("student", "critic"):
            assert (row[what] or 0.0) == pytest.approx(other[what] or 0.0, rel=1e-3)
        for what in ("gradient", "pull", "direction"):
            assert row[what] == pytest.approx(other[what], rel=5e-3, abs=1e-3)


def test_shards_equal_copies(worlds: Worlds) -> None:
    """FSDP2: the student's weights, moments and average are cut over both processes."""
    assert_close(worlds.end("one"), worlds.end_of_two("shards"))
    assert_close(worlds.end("shards-by-one"), worlds.end_of_two("one-by-shards"))
    held = re.findall(r"(\S+) rank \d holds (\S+) of the student", worlds.printed)
    assert sorted(name for name, _ in held) == ["one-by-shards"] * 2 + ["shards"] * 2
    assert all(float(share) < 0.75 for _, share in held)


def test_compiled_copies_equal_one_that_is_not(worlds: Worlds) -> None:
    assert_close(worlds.end("one"), worlds.end_of_two("compiled"))


def test_pictures_with_heads_of_their_own_are_shared_among_processes(worlds: Worlds) -> None:
    """A process may have no picture of a view; its heads are stepped there all the same. Samples of
    the teacher that are used twice come again in the process that made them."""
    assert_close(worlds.end("own-heads-one"), worlds.end_of_two("own-heads-two"))


def test_a_signal_to_one_process_stops_and_saves_all(worlds: Worlds) -> None:
    """It comes after the second iteration, whose measurements are exchanged already."""
    for rank in range(2):
        assert f"told rank {rank} stopped: stopped after iteration 3; continue" in worlds.printed
    assert [p.name for p in (worlds.folder / "told/checkpoints").iterdir()] == ["00000003"]
    assert_close(worlds.end("one"), worlds.end("told-by-one"))


@pytest.mark.parametrize(("parts", "what"), DISAGREE.items())
def test_parts_that_differ_by_process_stop_all_of_them(
    worlds: Worlds, parts: str, what: str
) -> None:
    for rank in range(2):
        told = f"{parts} rank {rank} stopped: Process 1 disagrees with process 0 on {what}. Parts"
        assert told in worlds.printed
    assert not list((worlds.folder / parts / "checkpoints").glob("0*"))

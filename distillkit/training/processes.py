"""Device, precision and processes of a run, and whether the processes agree.

Every process draws the same panel, picks the same heads and gives them the same weights, since all
of that is keyed by the iteration. A part that breaks this rule would silently train several pools.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from distillkit.errors import UserError
from distillkit.recipe.schema import Recipe
from distillkit.runs.folder import launched_processes

PATIENCE = timedelta(days=7)
"""For a process that evaluates rows which take longer than another's."""
PASSES = 5
"""Passes that a number of threads is measured by."""
LONG_PASS = 0.1
"""Seconds of a pass, usually of some milliseconds, that need no second one: a busy machine."""


def make_accelerator(recipe: Recipe, folder: Path) -> Any:
    """Device, precision, processes and trackers, by accelerate; sets torch's CPU threads.

    Raises `UserError` for a tracker that is not installed, a precision that the device lacks, what
    else accelerate refuses, and a launch whose processes do not find each other.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    run = recipe.run
    _check_trackers(run.trackers)
    if run.threads:
        torch.set_num_threads(run.threads)
    # It keeps one precision a Python process, and a notebook trains more than one recipe.
    kept = AcceleratorState._shared_state.get("_mixed_precision")
    if kept not in (None, run.precision) and launched_processes() == 1:
        AcceleratorState._reset_state()
    try:
        # Without CUDA accelerate must be told to use the CPU: else each process of a launch would
        # take itself for the only one, and all would write to the same folder.
        accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision=run.precision,
            log_with=run.trackers or None,
            project_dir=str(folder),
        )
    except ValueError as error:
        # It reads the environment too, and only its sentence tells what it does not like.
        if "precision" in str(error):
            said = f"run.precision: {run.precision} can't be used here: {error}"
            raise UserError(said) from None
        raise UserError(f"accelerate can't start here: {error}") from None
    _check_launch(accelerator)
    return accelerator


def join_processes() -> Any:
    """Device and processes of a command that trains nothing, by accelerate. Raises `UserError`."""
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    _check_launch(state)
    return state


def _check_launch(state: Any) -> None:
    """Raise `UserError` where the processes of a launch do not find each other."""
    launched = launched_processes()
    if state.num_processes != launched:
        raise UserError(
            f"The launcher started {launched} processes (WORLD_SIZE), and accelerate runs "
            f"{state.num_processes}: each would be a run of its own in one folder. Start "
            "them with `torchrun --nproc_per_node N -m distillkit run ...`."
        )


def set_threads(wanted: int | None, accelerator: Any) -> str:
    """Set torch's CPU threads; returns what to tell about it, for the end of a line.

    `wanted`: of the recipe, or of the run that is resumed. None takes the fastest number by a short
    measurement: on a machine that shares its cores, threads that wait for each other can be many
    times slower than one.
    """
    if accelerator.device.type != "cpu":
        if wanted:
            torch.set_num_threads(wanted)
        return ""
    if wanted:
        torch.set_num_threads(wanted)
        return f", {_count(wanted)} as given"
    if accelerator.num_processes > 1:  # the launcher shares the cores among its processes
        return f", {_count(torch.get_num_threads())} a process"
    options = sorted({1, 2, torch.get_num_threads()} & set(range(1, (os.cpu_count() or 1) + 1)))
    seconds = {threads: _measure(threads) for threads in options}
    # More threads than one must earn their place: what they gain now, a neighbour may take.
    best = min(seconds, key=lambda threads: seconds[threads] * (1.0 if threads == 1 else 1.1))
    torch.set_num_threads(best)
    measured = ", ".join(f"{_count(n)} {1000 * s:.0f} ms" for n, s in seconds.items())
    return f", {_count(best)} by measurement ({measured})"


def _measure(threads: int) -> float:
    """Seconds of a small network's forward and backward pass: the mean of a few, which counts the
    times that a thread waited for a core, or the first alone where that took long."""
    torch.set_num_threads(threads)
    net = torch.nn.Sequential(*(torch.nn.Conv2d(64, 64, 3, padding=1) for _ in range(4)))
    x_BCHW = torch.zeros(4, 64, 16, 16)

    def seconds() -> float:
        began = time.perf_counter()
        net(x_BCHW).sum().backward()
        return time.perf_counter() - began

    first = seconds()  # it starts the threads too
    if first > LONG_PASS:
        return first
    return sum(seconds() for _ in range(PASSES)) / PASSES


def _count(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def _check_trackers(trackers: Iterable[str]) -> None:
    from accelerate.tracking import get_available_trackers

    there = sorted(map(str, get_available_trackers()))
    for tracker in trackers:
        if tracker not in there:
            # accelerate would skip it silently.
            raise UserError(
                f"run.trackers: {tracker!r} is not installed, or accelerate does not know it; "
                f"installed: {', '.join(there) or 'none'}"
            )


def check_agreement(accelerator: Any, what: str, digest: int) -> None:
    """Raise `UserError` on every process where one of them has another digest of `what`."""
    if accelerator.num_processes == 1:
        return
    own = torch.tensor([digest], dtype=torch.int64, device=accelerator.device)
    digests = accelerator.gather(own).tolist()
    if len(set(digests)) > 1:
        others = [rank for rank, value in enumerate(digests) if value != digests[0]]
        raise UserError(
            f"Process {others[0]} disagrees with process 0 on {what}. Parts must depend on their "
            "arguments and generators alone, not on the process: no global random state, no rank, "
            "no order of a set. The last checkpoint is kept."
        )


def wait_for_the_last() -> None:
    """Wait for every process of the launch, though one be hours behind: NCCL's own barrier gives up
    after ten minutes. A process that was started alone goes on at once."""
    if not distributed.is_initialized():
        return
    group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    distributed.barrier(group)
    distributed.destroy_process_group(group)


def digest_of(*values: Any) -> int:
    """A 63-bit digest of tensors and plain values; equal on processes that have the same."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        else:
            digest.update(repr(value).encode())
    return int.from_bytes(digest.digest()[:8], "big") >> 1

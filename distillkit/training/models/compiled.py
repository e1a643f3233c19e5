"""torch.compile for the networks of a run: `run.compile`.

Modules are compiled in place, so names of weights, wrappers and checkpoints stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from distillkit.recipe.schema import RunConfig

FOR_GPUS = ("inductor", "cudagraphs")
"""Backends that have nothing to give on a CPU."""


def compile_networks(networks: Iterable[nn.Module], run: RunConfig, device: torch.device) -> None:
    """Compile each when it is first called, for each shape and each way of taking gradients.

    On a CPU those for GPUs are left out: inductor took nine minutes there for a student of 4 M
    parameters, and gained nothing.
    """
    if run.compile is None or (run.compile in FOR_GPUS and device.type == "cpu"):
        return
    for network in networks:
        network.compile(backend=run.compile)


@contextmanager
def running_eagerly(run: RunConfig) -> Iterator[None]:
    """Inside, nothing is compiled: previews and measurements have shapes of their own."""
    if run.compile is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield

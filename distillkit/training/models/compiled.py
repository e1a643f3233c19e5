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
WHOLE = ("cudagraphs",)
"""Backends for which a network is one region: replaying a recording costs its inputs a copy."""
VERSIONS = 64
"""Versions of a region's code (our choice): layers of several widths, for networks of two number
formats, with and without gradients, at each size of a view. By default torch stops at 8."""


def compile_networks(networks: Iterable[nn.Module], run: RunConfig, device: torch.device) -> None:
    """Compile each when it is first called, for each shape and each way of taking gradients.

    Where a network names the layers that repeat in it, as those of diffusers do, each of these is a
    region of its own: layers of one kind share what is compiled, so that it takes a minute where
    SDXL's UNet as a whole took longer than we waited.

    On a CPU those for GPUs are left out: inductor took nine minutes there for a student of 4 M
    parameters, and gained nothing.
    """
    if run.compile is None or (run.compile in FOR_GPUS and device.type == "cpu"):
        return
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, VERSIONS)
    for network in networks:
        for module in [network] if run.compile in WHOLE else regions(network):
            module.compile(backend=run.compile)


def regions(network: nn.Module) -> list[nn.Module]:
    """The layers that the network, or one within it, says are repeated; else all of it."""
    names = {name for m in network.modules() for name in getattr(m, "_repeated_blocks", None) or ()}
    return [m for m in network.modules() if type(m).__name__ in names] or [network]


@contextmanager
def running_eagerly(run: RunConfig) -> Iterator[None]:
    """Inside, nothing is compiled: previews and measurements have shapes of their own."""
    if run.compile is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield

"""torch.compile for the networks of a run: `run.compile`.

Modules are compiled in place, so names of weights, wrappers and checkpoints stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from distillkit.recipe.schema import RunConfig

FOR_GPUS = ("inductor",)
"""Backends that have nothing to give on a CPU."""
VERSIONS = 64
"""Versions of a region's code (our choice): layers of several widths, for networks of two number
formats, with and without gradients, at each size of a view. By default torch stops at 8."""


def compile_networks(networks: Iterable[nn.Module], run: RunConfig, device: torch.device) -> None:
    """Compile each when it is first called, for each shape and each way of taking gradients.

    Where layers of one kind repeat in a network, each is a region of its own: they share what is
    compiled, which takes seconds where a whole network takes many minutes.

    On a CPU those for GPUs are left out: inductor took nine minutes there for a student of 4 M
    parameters, and gained nothing.
    """
    if run.compile is None or (run.compile in FOR_GPUS and device.type == "cpu"):
        return
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, VERSIONS)
    for network in networks:
        for module in regions(network):
            module.compile(backend=run.compile)


def regions(network: nn.Module) -> list[nn.Module]:
    """The layers that repeat in a network, if it names their classes; else all of it.

    Names are where networks of diffusers have them: `_repeated_blocks`, or `_no_split_modules` of
    one without. A module that hides the network which it calls says so by `calls`.
    """
    within = list(getattr(network, "calls", network).modules())
    for attribute in ("_repeated_blocks", "_no_split_modules"):
        names = {name for m in within for name in getattr(m, attribute, None) or ()}
        if found := [m for m in within if type(m).__name__ in names]:
            return found
    return [network]


@contextmanager
def running_eagerly(run: RunConfig) -> Iterator[None]:
    """Inside, nothing is compiled: previews and measurements have shapes of their own."""
    if run.compile is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield

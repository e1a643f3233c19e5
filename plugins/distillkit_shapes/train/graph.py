"""A training step of a small network: on a GPU one graph, whose kernels are launched together.

Such a network's step is some thousands of kernels that take microseconds each, so that launching
them takes several times as long as running them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARMING = 3
"""Plain steps of a shape before its graph is recorded; libraries choose their kernels in them."""


class Step:
    """Calls `update`, which makes gradients and steps the optimizer; on a GPU, as a graph."""

    def __init__(
        self, update: Callable[[dict[str, Tensor]], Tensor], optim: torch.optim.Optimizer
    ) -> None:
        """`update`: from tensors by name to a loss, with no value read from the device on its way.

        `optim` has to be capturable, with its rate in a tensor.
        """
        self.update, self.optim = update, optim
        self._seen: dict[torch.Size, int] = {}
        self._graphs: dict[torch.Size, tuple[torch.cuda.CUDAGraph, dict[str, Tensor], Tensor]] = {}

    def __call__(self, given: dict[str, Tensor]) -> Tensor:
        """One step; returns its loss, which the next step of these shapes may overwrite."""
        first = next(iter(given.values()))
        if not first.is_cuda:
            return self._plain(given)
        shape = first.shape
        if shape not in self._graphs:
            self._seen[shape] = self._seen.get(shape, 0) + 1
            if self._seen[shape] <= WARMING:
                return self._beside(given)
            self._record(shape, given)
        graph, inputs, loss = self._graphs[shape]
        for name, value in given.items():
            inputs[name].copy_(value)
        graph.replay()
        return loss

    def _plain(self, given: dict[str, Tensor]) -> Tensor:
        self.optim.zero_grad(set_to_none=True)
        return self.update(given)

    def _beside(self, given: dict[str, Tensor]) -> Tensor:
        """On another stream than the default one, on which nothing can be recorded."""
        stream, main = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(main)
        with torch.cuda.stream(stream):
            loss = self._plain(given)
        main.wait_stream(stream)
        return loss

    def _record(self, shape: torch.Size, given: dict[str, Tensor]) -> None:
        inputs = {name: value.clone() for name, value in given.items()}
        graph = torch.cuda.CUDAGraph()
        self.optim.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            loss = self.update(inputs)
        self._graphs[shape] = graph, inputs, loss

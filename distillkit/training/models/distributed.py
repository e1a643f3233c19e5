"""Several processes: the student replicated on each (DDP), or sharded over them (FSDP2).

With shards, weights, gradients, moments and running average of the student are `DTensor`s: each
process holds one slice along the first dimension, and a block is whole only while it is run. Heads,
teacher and backbone stay whole on every process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor, nn

BUCKET = 25 * 2**20
"""Bytes of gradients that are exchanged in one call, as DDP does it: heads have hundreds of small
tensors, and each call waits for the slowest process."""

FORMATS = {"no": None, "bf16": torch.bfloat16}


def parallelize(module: nn.Module, accelerator: Any, parallel: str) -> nn.Module:
    """The student's network for as many processes as there are; alone it stays as it is.

    `parallel` is `ddp` or `fsdp2`.
    """
    if parallel == "ddp" or accelerator.num_processes == 1:
        return cast("nn.Module", accelerator.prepare(module))
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    # Gathered and computed in 16 bits, summed and kept in 32.
    dtype = FORMATS[accelerator.mixed_precision]
    policy = MixedPrecisionPolicy(
        dtype, torch.float32 if dtype else None, cast_forward_inputs=False
    )
    for block in _blocks(module):
        fully_shard(block, mp_policy=policy)
    # The root too is sharded again after a forward pass: snapshots and EMA read its weights.
    return cast("nn.Module", fully_shard(module, mp_policy=policy, reshard_after_forward=True))


def unwrap(module: nn.Module) -> nn.Module:
    """The network without the wrapper for several processes."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def is_sharded(module: nn.Module) -> bool:
    """Whether a process holds a slice of the weights only, so that all must run it together."""
    return any(_is_sharded(p) for p in islice(module.parameters(), 1))  # all are, or none


@contextmanager
def gradient_sync(module: nn.Module, accelerator: Any, last: bool) -> Iterator[None]:
    """Inside, a backward pass exchanges gradients between processes if it is the `last` one."""
    if is_sharded(module):
        cast("Any", module).set_requires_gradient_sync(last)
        yield
    elif last:
        yield
    else:
        with accelerator.no_sync(module):
            yield


@torch.no_grad()
def average_gradients(
    parameters: Sequence[nn.Parameter], reduce: Callable[[Tensor, str], Tensor]
) -> None:
    """Average the gradients that there are over processes, a bucket at a time.

    `reduce`: accelerate's. All processes must have gradients of the same parameters.
    """
    for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
        means = reduce(torch.cat([grad.flatten() for grad in bucket]), "mean")
        for grad, mean in zip(bucket, means.split([g.numel() for g in bucket]), strict=True):
            grad.copy_(mean.view_as(grad))


def _buckets(grads: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one format, together no larger than `BUCKET`, or one tensor that is."""
    bucket: list[Tensor] = []
    left = BUCKET
    for grad in grads:
        left -= grad.nbytes
        if bucket and (left < 0 or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket, left = [], BUCKET - grad.nbytes
        bucket.append(grad)
    if bucket:
        yield bucket


def gather_all(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`gather` of each tensor."""
    return {name: gather(tensor) for name, tensor in tensors.items()}


def gather(tensor: Tensor) -> Tensor:
    """A tensor with its shards put together, on the CPU; one without shards as it is.

    All processes must call it.
    """
    return (
        cast("Tensor", cast("Any", tensor).full_tensor()).cpu() if _is_sharded(tensor) else tensor
    )


@torch.no_grad()
def copy_into(target: Tensor, values: Tensor) -> None:
    """Copy `values`, whole, into `target`, which may be cut into shards."""
    target.copy_(shard_like(target, values))


def aside(values: Tensor) -> Tensor:
    """A copy that takes no memory of the device: in main memory, where `values` is whole."""
    kept = values.detach()
    return kept.clone() if _is_sharded(kept) else kept.to("cpu", copy=True)


def shard_like(target: Tensor, values: Tensor) -> Tensor:
    """`values`, whole on every process, on the device of `target` and cut as it is."""
    values = values.to(target.device)
    if not _is_sharded(target) or values.shape != target.shape:
        return values
    from torch.distributed.tensor import distribute_tensor

    cut = cast("Any", target)
    return distribute_tensor(values, cut.device_mesh, cut.placements, src_data_rank=None)


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost entries of the module's lists: a network's stages or layers."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _blocks(child)

"""The players' optimizers: AdamW with moments of 32 or 8 bits, their memory, and their state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from distillkit.errors import UserError
from distillkit.recipe.schema import AdamWConfig
from distillkit.training.models.distributed import gather, shard_like

SMALLEST_8BIT, BLOCK = 4096, 256
"""bitsandbytes' own: tensors with fewer values keep float32 moments; values that share a scale."""
QMAP_BYTES = 256 * 4
"""The table that maps 8 bits to numbers; one a moment, shared by all tensors."""

Group = tuple[Sequence[nn.Parameter], AdamWConfig]


def make_optimizer(*groups: Group) -> Optimizer:
    """AdamW over groups of parameters; parameters without a gradient are skipped by its steps.

    The first group says how many bits the moments have. Raises `UserError` where bitsandbytes is
    needed and missing.
    """
    filled = [(list(parameters), optim) for parameters, optim in groups if parameters]
    groups_of = [{"params": parameters} | hyperparameters(optim) for parameters, optim in filled]
    if filled[0][1].bits == 32:
        return torch.optim.AdamW(groups_of, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise UserError(
            "optim: AdamW with 8 bits needs bitsandbytes; install it with "
            "pip install 'distillkit[8bit]', or set bits to 32"
        ) from None
    return AdamW8bit(groups_of)


def hyperparameters(optim: AdamWConfig) -> dict[str, Any]:
    """What AdamW takes for a parameter group."""
    return {"lr": optim.lr, "betas": optim.betas, "weight_decay": optim.weight_decay}


@dataclass(frozen=True)
class ClippedGroup:
    """A group of parameters with gradients, and their norm: taken once, for the log and to clip."""

    parameters: Sequence[nn.Parameter]
    norm: Tensor
    limit: float | None

    @staticmethod
    def of(parameters: Iterable[nn.Parameter], optim: AdamWConfig) -> ClippedGroup:
        """Those of the parameters that have a gradient."""
        learning = [p for p in parameters if p.grad is not None]
        grads = [p.grad for p in learning if p.grad is not None]
        return ClippedGroup(learning, get_total_norm(grads), optim.clip)

    def clip(self) -> None:
        """Scale the gradients down to the group's limit, if it has one."""
        if self.limit is not None and self.parameters:
            clip_grads_with_norm_(self.parameters, self.limit, self.norm)


def total_norm(groups: Sequence[ClippedGroup]) -> Tensor:
    """Norm of all groups' gradients together; 0 where none has one."""
    norms = [gather(group.norm) for group in groups if group.parameters]
    if len(norms) < 2:
        return norms[0] if norms else torch.zeros(())
    return get_total_norm(norms)


def moments_bytes(parameters: Iterable[nn.Parameter], optim: AdamWConfig) -> int:
    """Bytes of the state of an optimizer that has stepped every parameter once.

    32 bits: two moments and a count, all float32. 8 bits: a byte a moment and value, and a float32
    scale a block.
    """
    sizes = [p.numel() for p in parameters]
    if optim.bits == 32:
        return sum(2 * 4 * size + 4 for size in sizes)
    small = [size for size in sizes if size < SMALLEST_8BIT]
    large = [size for size in sizes if size >= SMALLEST_8BIT]
    blocks = sum(-(-size // BLOCK) for size in large)
    return 8 * sum(small) + 2 * sum(large) + 8 * blocks + (2 * QMAP_BYTES if large else 0)


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as named tensors: `<index of the parameter>.<state>`.

    No two share memory, which safetensors refuses: bitsandbytes has one table for all parameters.
    All processes must call it: it gathers shards.
    """
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()
    for index, parameter in enumerate(_parameters(optimizer)):
        for name, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, int):
                value = torch.tensor(value)
            if isinstance(value, Tensor):
                value = gather(value)
                storage = value.untyped_storage().data_ptr()
                tensors[f"{index}.{name}"] = value.clone() if storage in storages else value
                storages.add(storage)
    return tensors


def load_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave; parameters that had no state get none."""
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        # bitsandbytes counts its steps in Python integers, torch in float32 tensors.
        is_count = value.ndim == 0 and not value.is_floating_point()
        kept = int(value) if is_count else shard_like(parameter, value.clone())
        optimizer.state[parameter][name] = kept


def delete_state(optimizer: Optimizer | None, parameters: Iterable[nn.Parameter]) -> None:
    """Delete the parameters' moments and step counts."""
    if optimizer is None:
        return
    for parameter in parameters:
        optimizer.state.pop(parameter, None)


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]

"""What is wrong with a value that a part returned: the end of a sentence, or None.

Legend: B pictures, C latent channels, H, W latent cells, K patch logits, N heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from distillkit.values import Condition, Panel

if TYPE_CHECKING:
    from distillkit.contracts import Backbone, Pool


MOST_CHARACTERS = 100
"""Of a stage's name, which becomes a file's."""


def check_panel(panel: Any, pool: Pool, backbone: Backbone, batch: int) -> str | None:
    """What is wrong with a drawn panel, if anything."""
    if not isinstance(panel, Panel):
        return f"returned {_what(panel)}, not a Panel"
    if not panel.head_ids:
        return "returned a panel without heads, so that no critic trains"
    for judged in panel.views:
        if judged.rows is not None and not isinstance(judged.rows, tuple):
            return f"returned rows {_what(judged.rows)}, not a tuple of whole numbers or None"
        rows = len(judged.rows) if judged.rows is not None else batch
        if judged.rows is not None and not _ascending(judged.rows, batch):
            return f"returned rows {judged.rows[:8]}, not ascending pictures from 0 to {batch - 1}"
        if not isinstance(judged.t_B, Tensor) or tuple(judged.t_B.shape) != (rows,):
            return f"returned t_B {_what(judged.t_B)}, not one timestep for each of {rows} pictures"
        if judged.t_B.device.type != "cpu":
            return f"returned t_B on {judged.t_B.device}; it belongs on the CPU"
        if not 0 <= float(judged.t_B.min()) <= float(judged.t_B.max()) <= 999:
            return f"returned timesteps outside 0 to 999: {judged.t_B.tolist()[:8]}"
        if not 0 < judged.view.crop <= 1:
            return f"returned view '{judged.view.name}' with crop {judged.view.crop}, not in (0, 1]"
        for drawn in judged.heads:
            if not 0 <= drawn.level < len(backbone.channels):
                return (
                    f"returned {drawn}; the backbone has levels 0 to {len(backbone.channels) - 1}"
                )
            if not 0 <= drawn.head < len(pool.heads):
                return f"returned {drawn}; the pool has heads 0 to {len(pool.heads) - 1}"
    return None


def _ascending(rows: Sequence[int], batch: int) -> bool:
    """Whether these are some of the pictures, each once and in order."""
    return bool(rows) and list(rows) == sorted({*rows} & {*range(batch)})


def check_picked(picked: Sequence[Any], heads: int) -> str | None:
    """What is wrong with the heads that a refresh policy picked, if anything."""
    if any(type(head) is not int for head in picked):
        return f"returned {picked[:4]!r}, not whole numbers of Python"
    if len(set(picked)) != len(picked) or not set(picked) <= set(range(heads)):
        return f"returned {picked[:8]}, not distinct heads from 0 to {heads - 1}"
    return None


def check_maps(maps: Any, backbone: Backbone, batch: int) -> str | None:
    """What is wrong with a backbone's feature maps, if anything."""
    if len(maps) != len(backbone.channels):
        return f"returned {len(maps)} maps, and `channels` has {len(backbone.channels)} levels"
    for level, (found, channels) in enumerate(zip(maps, backbone.channels, strict=True)):
        if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[:2] != (batch, channels):
            return f"returned {_what(found)} for level {level}, not ({batch}, {channels}, h, w)"
        if flaw := _not_real(found):
            return f"returned {flaw} for level {level}"
    return None


def check_logits(logits_BK: Any, batch: int) -> str | None:
    """What is wrong with a head's logits, if anything."""
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2 or len(logits_BK) != batch:
        return f"returned {_what(logits_BK)}, not ({batch}, K) patch logits"
    if not logits_BK.shape[1]:
        return "returned no logits: a head gives at least one for each"
    flaw = _not_real(logits_BK)
    return f"returned {flaw}" if flaw else None


def check_samples(x_0_BCHW: Any, shape: Sequence[int]) -> str | None:
    """What is wrong with sampled latents, if anything."""
    if not isinstance(x_0_BCHW, Tensor) or tuple(x_0_BCHW.shape) != tuple(shape):
        return f"returned {_what(x_0_BCHW)}, not latents {tuple(shape)}"
    flaw = _not_real(x_0_BCHW, "latents")
    return f"returned {flaw}" if flaw else None


def check_loss(value: Any) -> str | None:
    """What is wrong with a loss's value, if anything."""
    if value is not None and (not isinstance(value, Tensor) or value.ndim):
        return f"returned {_what(value)}, not a scalar tensor or None"
    flaw = _not_real(value, "a scalar") if value is not None else None
    return f"returned {flaw}" if flaw else None


def _not_real(values: Tensor, name: str = "values") -> str | None:
    """What values that gradients should pass are instead, if anything."""
    if not values.is_floating_point() or values.dtype == torch.float64:
        return f"{name} of {str(values.dtype).removeprefix('torch.')}, not of float32 or 16 bits"
    if not values.is_meta and not bool(values.isfinite().all()):
        verb = "is" if not values.ndim else "are"
        return f"{name} that {verb} not finite"
    return None


def _what(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]


def check_condition(cond: Any, rows: int) -> str | None:
    """What is wrong with the condition of so many prompts, if anything."""
    if not isinstance(cond, Condition) or not cond.tensors:
        return f"returned {_what(cond)}, not a Condition with tensors"
    for name, tensor in cond.tensors.items():
        if not isinstance(tensor, Tensor) or not tensor.ndim or len(tensor) != rows:
            return f"returned {_what(tensor)} for '{name}', not one row for each of {rows} prompts"
    return None


def check_pictures(images_B3HW: Any, count: int, size: Sequence[int] | None = None) -> str | None:
    """What is wrong with pictures, if anything. `size`: their height and width, where it is
    known."""
    wanted = f"({count}, 3, {', '.join(map(str, size or ('height', 'width')))})"
    if not isinstance(images_B3HW, Tensor) or images_B3HW.ndim != 4:
        return f"returned {_what(images_B3HW)}, not pictures {wanted}"
    shape = tuple(images_B3HW.shape)
    if shape[:2] != (count, 3) or (size is not None and shape[2:] != tuple(size)):
        return f"returned {_what(images_B3HW)}, not pictures {wanted}"
    if images_B3HW.is_meta:
        return None
    low, high = float(images_B3HW.min()), float(images_B3HW.max())
    if not -0.01 <= low <= high <= 1.01:  # 16 bits round
        return f"returned pictures from {low:g} to {high:g}, which leave the range [0, 1]"
    return None


def check_modules(listed: Any) -> str | None:
    """What is wrong with the networks that a part lists, if anything."""
    kinds = list | tuple | nn.ModuleList
    if not isinstance(listed, kinds) or not all(isinstance(m, nn.Module) for m in listed):
        return f"returned {_what(listed)}, not a list of networks"
    return None


def check_stage(name: Any) -> str | None:
    """What is wrong with the name of a refinement's stage, if anything."""
    usable = isinstance(name, str) and name.isprintable() and 0 < len(name) <= MOST_CHARACTERS
    if not usable or name.startswith(".") or {*name} & {*"/\\"}:
        return f"returned {name!r}: a stage's name is a snapshot's file name"
    if name == "start":
        return "returned 'start', which is the snapshot before the first stage"
    return None


def check_steps(steps: Any) -> str | None:
    """What is wrong with the length of a roll-out, if anything."""
    if type(steps) is not int or not 1 <= steps <= 4:
        return f"returned {steps!r}; a roll-out has 1 to 4 steps"
    return None


def check_prompts(prompts: Any, count: int) -> str | None:
    """What is wrong with held-out prompts, if anything."""
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        return f"returned {_what(prompts)}, not a list of prompts"
    return None if len(prompts) == count else f"returned {len(prompts)} prompts, not {count}"


def check_values(values: Any, declared: Mapping[str, Any]) -> str | None:
    """What is wrong with computed metrics, if anything."""
    if not isinstance(values, Mapping):
        return f"returned {_what(values)}, not values by name"
    if differing := sorted(map(str, values.keys() ^ declared.keys())):
        return f"and `info` differ in '{differing[0]}': both name every metric"
    for name, value in values.items():
        try:
            number = None if isinstance(value, str) else float(value)
        except (TypeError, ValueError, RuntimeError):
            number = None
        if number is None:
            return f"returned {_what(value)} for '{name}', not a number"
    return None

"""What parts return is checked once, at its first use; what they raise becomes one sentence.

A check that passed is not repeated, so that it costs nothing afterwards.

Legend: B pictures, C latent channels, H, W latent cells, K patch logits, N heads.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit.values import Panel

if TYPE_CHECKING:
    from distillkit.contracts import Backbone, Pool


class PartError(UserError):
    """A part broke its contract; the message names the part, its package and the rule."""


class Guard:
    """Turns what goes wrong inside one part into a sentence that names it.

    with guard("draw()"):
        panel = pool.draw(...)
    """

    def __init__(self, label: str) -> None:
        """`label`: the part and who brought it, such as "pool 'x' of plugin 'y' (z 1.0)"."""
        self.label = label
        self._checked: set[str] = set()

    @contextmanager
    def __call__(self, call: str) -> Iterator[None]:
        """Inside, an exception other than `UserError` is raised as `PartError`."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error} ({place_of(error)})"
            raise PartError(f"{self.label} failed in {call}: {said}") from error

    def once(self, call: str, flaw: Callable[[], str | None]) -> None:
        """`check`, the first time it is asked for `call`."""
        if call not in self._checked:
            self.check(call, flaw)
            self._checked.add(call)

    def check(self, call: str, flaw: Callable[[], str | None]) -> None:
        """Raise `PartError` where `flaw()` returns what is wrong with the result of `call`."""
        with self(call):
            found = flaw()
        if found:
            raise PartError(f"{self.label} breaks its contract: {call} {found}")


def place_of(error: Exception) -> str:
    """The innermost line in the folder of the part, whose call is the first that is neither in the
    core (of which `distillkit.examples` are parts) nor in torch."""
    core, torchs = Path(__file__).parents[1], Path(torch.__file__).parent
    frames = traceback.extract_tb(error.__traceback__)
    folders = [Path(frame.filename).parent for frame in frames]
    own = [
        folder
        for folder in folders
        if folder == core / "examples" or not {core, torchs} & {folder, *folder.parents}
    ]
    parts = [f for f, folder in zip(frames, folders, strict=True) if own and folder == own[0]]
    frame = parts[-1] if parts else frames[-1]
    return f"{frame.filename}:{frame.lineno}"


def check_panel(panel: Any, pool: Pool, backbone: Backbone, batch: int) -> str | None:
    """What is wrong with a drawn panel, if anything."""
    if not isinstance(panel, Panel):
        return f"returned {_what(panel)}, not a Panel"
    if not panel.head_ids:
        return "returned a panel without heads, so that no critic trains"
    for judged in panel.views:
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
    return None


def check_logits(logits_BK: Any, batch: int) -> str | None:
    """What is wrong with a head's logits, if anything."""
    if not isinstance(logits_BK, Tensor) or logits_BK.ndim != 2 or len(logits_BK) != batch:
        return f"returned {_what(logits_BK)}, not ({batch}, K) patch logits"
    return None


def check_samples(x_0_BCHW: Any, shape: Sequence[int]) -> str | None:
    """What is wrong with sampled latents, if anything."""
    if not isinstance(x_0_BCHW, Tensor) or tuple(x_0_BCHW.shape) != tuple(shape):
        return f"returned {_what(x_0_BCHW)}, not latents {tuple(shape)}"
    if not x_0_BCHW.is_meta and not bool(x_0_BCHW.isfinite().all()):
        return "returned latents that are not finite"
    return None


def check_loss(value: Any) -> str | None:
    """What is wrong with a loss's value, if anything."""
    if value is not None and (not isinstance(value, Tensor) or value.ndim):
        return f"returned {_what(value)}, not a scalar tensor or None"
    return None


def _what(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)[:60]

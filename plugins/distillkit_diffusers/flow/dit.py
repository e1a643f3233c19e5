"""The critics' backbone on a frozen transformer: the picture's tokens after some blocks, as maps.

Legend: B batch, C latent channels, H, W latent cells, h, w patches, N = hw tokens, D units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distillkit.errors import UserError
from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.flow.family import spread
from distillkit_diffusers.flow.teacher import network_sigma

if TYPE_CHECKING:
    from distillkit.values import Condition, Window
    from distillkit_diffusers.flow.teacher import FlowTeacher


@dataclass(frozen=True)
class Places:
    """Where the patches of views lie in their pictures, in patches."""

    top_B: Tensor
    left_B: Tensor
    """Of each view's upper left corner, int64 on the CPU."""
    rows: int
    columns: int
    """Of the views."""
    full_rows: int
    full_columns: int
    """Of the pictures."""


class TappedBlocks(nn.Module):
    """A transformer's blocks up to the last tapped one, whose tensors it shares."""

    def __init__(self, taps: Sequence[int], gradient_checkpointing: bool) -> None:
        super().__init__()
        self.taps, self.checkpoints = tuple(taps), gradient_checkpointing

    def forward(
        self, x_t_BCHW: Tensor, sigma_B: Tensor, embeds: Mapping[str, Tensor], places: Places
    ) -> list[Tensor]:
        """A map (B, D, h, w) of each tap."""
        raise NotImplementedError

    def run(self, block: nn.Module, *given: Any) -> Any:
        """The block's output; with gradient checkpointing its own activations are not kept."""
        if self.checkpoints and torch.is_grad_enabled():
            return checkpoint(block, *given, use_reentrant=False)
        return block(*given)


class DiTBackbone:
    """Fulfils `distillkit.contracts.Backbone`; blocks after the last tap are left out."""

    def __init__(
        self,
        teacher: FlowTeacher,
        taps: Sequence[int] | None = None,
        shifted: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        """`taps`: numbers of blocks, ascending; None takes five, spread. `shifted`: a local view's
        patches have the positions that they have in the picture. Raises `UserError`."""
        there = teacher.family.blocks(teacher.pipe.transformer.config)
        taps = spread(there.depth) if taps is None else tuple(taps)
        if max(taps) >= there.depth:
            raise UserError(
                f"backbone.blocks: there is no block {max(taps)}; the network's blocks are 0 to "
                f"{there.depth - 1}"
            )
        self.channels, self.cell = (there.width,) * len(taps), there.patch
        self.pooled_channels = there.pooled or None  # None: the family has no pooled prompt
        self.schedule, self.shifted = teacher.schedule, shifted
        self.dtype = teacher.pipe.transformer.dtype
        self.network = teacher.tapped(taps, gradient_checkpointing).eval().requires_grad_(False)

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        """One map (B, D, h, w) a tap, in the backbone's number format."""
        device = x_t_BCHW.device
        with own_format(self.dtype, device):
            maps: Sequence[Tensor] = self.network(
                x_t_BCHW.to(self.dtype),
                network_sigma(self.schedule, t_B.to(device)),
                cond.to(device, self.dtype).tensors,
                self._places(window),
            )
        return maps

    def pooled(self, cond: Condition) -> Tensor:
        """The pooled prompt (B, P), of a family that has one."""
        return cond.tensors["pooled"]

    def modules(self) -> Sequence[nn.Module]:
        """The tapped blocks, and what is before them."""
        return [self.network]

    def _places(self, window: Window) -> Places:
        cell = self.cell
        rows, columns = window.height // cell, window.width // cell
        if not self.shifted:
            zeros_B = torch.zeros_like(window.top_B)
            return Places(zeros_B, zeros_B, rows, columns, rows, columns)
        full = (window.full_height // cell, window.full_width // cell)
        return Places(window.top_B // cell, window.left_B // cell, rows, columns, *full)

"""The few values that flow between parts: conditions, windows, drawn heads, logits.

Legend: B batch, C latent channels, H, W latent cells, K patch logits of a head, N heads in a pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """What a network is conditioned on beside x_t and t: named tensors, each with B rows.

    The core slices, concatenates and moves them; what the names mean is up to the model family.
    """

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice) -> Condition:
        return Condition({name: tensor[rows] for name, tensor in self.tensors.items()})

    def to(self, device: Any, dtype: Any = None) -> Condition:
        """The tensors on `device`, and in `dtype` where one is given."""
        return Condition({name: t.to(device, dtype) for name, t in self.tensors.items()})

    @staticmethod
    def join(parts: Sequence[Condition]) -> Condition:
        """The parts' rows concatenated. All parts must have the same names."""
        import torch

        names = parts[0].tensors
        return Condition({name: torch.cat([p.tensors[name] for p in parts]) for name in names})


@dataclass(frozen=True)
class Window:
    """Where a crop lies in the whole latent, in cells. One size, one corner a picture."""

    top_B: Tensor
    """Row of each picture's upper left corner, int64 on the CPU."""
    left_B: Tensor
    """Column of each picture's upper left corner, int64 on the CPU."""
    height: int
    width: int
    full_height: int
    full_width: int

    def crop(self, x_BCHW: Tensor) -> Tensor:
        """Each picture's own crop, (B, C, height, width)."""
        import torch

        if self.height == self.full_height and self.width == self.full_width:
            return x_BCHW
        corners = zip(self.top_B.tolist(), self.left_B.tolist(), strict=True)
        return torch.stack(
            [
                x_CHW[:, top : top + self.height, left : left + self.width]
                for x_CHW, (top, left) in zip(x_BCHW, corners, strict=True)
            ]
        )

    @staticmethod
    def join(windows: Sequence[Window]) -> Window:
        """Windows of one size, concatenated along the batch."""
        import torch

        first = windows[0]
        return Window(
            torch.cat([w.top_B for w in windows]),
            torch.cat([w.left_B for w in windows]),
            *(first.height, first.width, first.full_height, first.full_width),
        )


@dataclass(frozen=True)
class View:
    """What a discriminator sees of a picture (section 3.4, multi-scale and dual objective)."""

    name: str
    """Such as `global-cond` or `local-uncond`."""
    crop: float
    """Side of the crop as a fraction of the latent's side, in (0, 1]; 1 is the whole picture."""
    conditional: bool
    """Whether the backbone gets the prompt's condition, or the null condition."""


@dataclass(frozen=True)
class DrawnHead:
    """A head that was drawn, and the feature level it reads."""

    level: int
    """Index into the backbone's maps."""
    head: int
    """Index into the pool's heads."""


@dataclass(frozen=True)
class JudgedView:
    """One view at its noise levels, with the heads that judge it: one branch of the panel."""

    view: View
    t_B: Tensor
    """Discriminator timestep t* of each picture, 0 to 999; int64, or float for fractional t."""
    heads: tuple[DrawnHead, ...]


@dataclass(frozen=True)
class Panel:
    """The heads drawn for one iteration, view by view (D ~ P in section 3.2)."""

    views: tuple[JudgedView, ...]

    @property
    def head_ids(self) -> list[int]:
        """Indices of the drawn heads, each once, ascending."""
        return sorted({drawn.head for judged in self.views for drawn in judged.heads})

    def of(self, rows: slice) -> Panel:
        """The same heads for some of the iteration's pictures."""
        return Panel(tuple(JudgedView(v.view, v.t_B[rows], v.heads) for v in self.views))


@dataclass(frozen=True, kw_only=True)
class HeadLogits:
    """The patch logits of one head for paired pictures; higher means "from the teacher"."""

    view: str
    """Name of the view."""
    level: int
    """Feature level that the head reads."""
    head: int
    """Index of the head in the pool."""
    t_B: Tensor
    """Discriminator timestep t* of each picture."""
    real_BK: Tensor
    """Logits of the teacher's samples, float32."""
    fake_BK: Tensor
    """Logits of the student's samples, float32."""


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is shown and read: by the report, by tables, by the terminal."""

    title: str
    """Short name for a column's head."""
    description: str
    """What it measures, in which features, and what to compare it with."""
    better: Literal["lower", "higher", "teacher"]
    """Which values are better; `teacher`: those nearer to the teacher's own."""
    floor: bool = False
    """Whether the teacher's own value is the least that a student can be expected to reach."""

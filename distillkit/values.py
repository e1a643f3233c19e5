"""The few values that flow between parts: conditions, windows, drawn heads, logits.

Legend: B batch, C latent channels, H, W latent cells, K patch logits of a head, N heads in a pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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

    def rows(self, rows: Sequence[int]) -> Condition:
        """Some of the rows, by index."""
        import torch

        index = sent(torch.tensor(rows), next(iter(self.tensors.values())).device)
        return Condition({name: tensor[index] for name, tensor in self.tensors.items()})

    def to(self, device: Any, dtype: Any = None) -> Condition:
        """The tensors on `device`, and those of real numbers in `dtype` where one is given.

        Masks and ids keep their own type: rounded to 16 bits they would be others.
        """
        return Condition(
            {
                name: t.to(device, dtype if t.is_floating_point() else None)
                for name, t in self.tensors.items()
            }
        )

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
    rows: tuple[int, ...] | None = None
    """The pictures it judges, ascending, one an entry of t_B; None is all of them."""

    def of(self, rows: slice) -> JudgedView:
        """The view for some of the iteration's pictures, of which it may judge none."""
        if self.rows is None:
            return replace(self, t_B=self.t_B[rows])
        kept = [n for n, row in enumerate(self.rows) if rows.start <= row < rows.stop]
        inside = tuple(self.rows[n] - rows.start for n in kept)
        return replace(self, t_B=self.t_B[kept], rows=inside)


@dataclass(frozen=True)
class Panel:
    """The heads drawn for one iteration, view by view (D ~ P in section 3.2)."""

    views: tuple[JudgedView, ...]

    @property
    def head_ids(self) -> list[int]:
        """Indices of the drawn heads, each once, ascending."""
        return sorted({drawn.head for judged in self.views for drawn in judged.heads})

    def of(self, rows: slice) -> Panel:
        """The same for some of the iteration's pictures. Every view keeps its place, which its
        random draws are keyed by."""
        return Panel(tuple(judged.of(rows) for judged in self.views))


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
    """Discriminator timestep t* of each picture that the head judges."""
    rows: tuple[int, ...] | None = None
    """Which of the micro-batch's pictures these are; None is all of them."""
    critic: str = ""
    """Name of the critic, where the recipe has several."""
    real_BK: Tensor
    """Logits of the teacher's samples, float32; B counts `rows` where they are given."""
    fake_BK: Tensor
    """Logits of the student's samples, float32."""


@dataclass(frozen=True)
class HeadStats:
    """What a refresh policy knows of every head of the pool, after an iteration in which its critic
    judged. On the CPU."""

    age_N: Tensor
    """Iterations in which the critic judged, since each head was last (re-)initialised; int64."""
    updates_N: Tensor
    """Updates (optimizer steps) of each head since then, int64."""
    learned_N: Tensor
    """Whether each head had an update in this iteration: it was drawn, and a loss used it; bool."""
    accuracy_N: Tensor
    """Fraction of the pictures seen since the reset of which a head ranked real above fake, over
    all micro-batches and processes, float64; NaN for heads that have seen none."""

    def __len__(self) -> int:
        return len(self.age_N)


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
    main: bool = True
    """Whether it stands in the first table; the others, in a second one of the report."""
    partial: bool = False
    """Whether some pictures leave it undefined, as a share of captions of a kind that none has.
    `compute` then returns NaN."""


@dataclass(frozen=True)
class Measurement:
    """What a metrics part found in one row of pictures."""

    values: Mapping[str, float]
    """Each metric of the whole row."""
    per_picture: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of metrics that are a mean over pictures: each picture's own value, in their order. Rows of
    two runs can then be compared picture by picture."""


def sent(tensor: Tensor, device: Any) -> Tensor:
    """A tensor of the CPU on `device`: to a GPU from pinned memory, so that nobody waits for it."""
    import torch

    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        # Contiguous: views that repeat an element, as `expand` makes, can't be pinned.
        return tensor.contiguous().pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

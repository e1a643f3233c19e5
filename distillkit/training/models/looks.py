"""How a panel's views look at a micro-batch: crop, noise, t* and condition.

They are drawn and sent to the device once, and serve the real pictures and the fake ones.

Legend: B pictures of some views, C channels, H, W latent cells, h, w those of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from distillkit.values import Condition, JudgedView, Window, sent


@dataclass(frozen=True)
class Look:
    """Views whose crops have one size, so that they pass through the backbone together."""

    views: Sequence[int]
    """Their places in the panel."""
    rows: Sequence[Tensor | None]
    """The pictures that each of them judges, on the device; None judges all."""
    windows: Sequence[Window]
    """Each one's own."""
    t_B: Tensor
    noise_BChw: Tensor
    cond: Condition

    @property
    def window(self) -> Window:
        """All of them, view by view."""
        return Window.join(self.windows)

    @property
    def counts(self) -> list[int]:
        """Pictures of each view."""
        return [len(window.top_B) for window in self.windows]

    def crops(self, x_0_BCHW: Tensor) -> Tensor:
        """The views' crops (B, C, h, w), view by view."""
        seen = [x_0_BCHW if r is None else x_0_BCHW.index_select(0, r) for r in self.rows]
        return torch.cat([w.crop(x_BCHW) for w, x_BCHW in zip(self.windows, seen, strict=True)])


def rows_on(device: torch.device, views: Sequence[JudgedView]) -> list[Tensor | None]:
    """The rows of each view as indices on the device, sent together."""
    if all(judged.rows is None for judged in views):
        return [None] * len(views)
    rows = [judged.rows or () for judged in views]
    together = sent(torch.tensor([row for some in rows for row in some], dtype=torch.int64), device)
    parts = together.split([len(some) for some in rows])
    return [
        part if judged.rows is not None else None for judged, part in zip(views, parts, strict=True)
    ]


def random_window(
    shape: Sequence[int], fraction: float, generators: Sequence[Generator], cell: int = 1
) -> Window:
    """A crop of `fraction` of each side of a (C, H, W) latent, at a random corner a generator.

    Sides and corners are multiples of `cell`, the backbone's patches.
    """
    _, height, width = shape
    h, w = (max(1, round(side * fraction / cell)) * cell for side in (height, width))
    tops, lefts = [], []
    for rng in generators:
        tops.append(cell * int(torch.randint((height - h) // cell + 1, (), generator=rng)))
        lefts.append(cell * int(torch.randint((width - w) // cell + 1, (), generator=rng)))
    # On the CPU: `Window.crop` reads the corners, and reading them from a GPU would wait for it.
    return Window(torch.tensor(tops), torch.tensor(lefts), h, w, height, width)

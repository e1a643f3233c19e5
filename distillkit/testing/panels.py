"""What can be wrong with a drawn panel. Legend: B pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from distillkit.testing.findings import Findings, shape_of
from distillkit.values import DrawnHead, JudgedView, Panel, View


def panel_flaws(panel: Any, heads: int, channels: Sequence[int], batch: int) -> list[str]:
    """Sentences about a panel for `batch` pictures, of a pool with so many heads."""
    if not isinstance(panel, Panel):
        return [f"draw(): gave {_what(panel)}, not a Panel"]
    if not all(isinstance(judged, JudgedView) for judged in panel.views):
        return [f"draw(): views are {_what(panel.views)}, not JudgedViews"]
    flaws = [] if panel.head_ids else ["draw(): a panel has no head"]
    for judged in panel.views:
        flaws += [f"draw(): {flaw}" for flaw in _view(judged, batch)]
        for drawn in judged.heads:
            if not _inside(drawn, heads, len(channels)):
                flaws.append(
                    f"draw(): {drawn} is out of range: heads are 0 to {heads - 1}, levels 0 to "
                    f"{len(channels) - 1}"
                )
    return list(dict.fromkeys(flaws or _unequal(panel, batch)))


def plain(panel: Panel) -> Any:
    """The panel as values that can be compared."""
    return [(judged.view, judged.t_B.tolist(), judged.heads, judged.rows) for judged in panel.views]


def _unequal(panel: Panel, batch: int) -> Findings:
    """Losses weigh every judged picture alike: a picture that more heads judge than the others
    would count for more in one batch, and for less in a micro-batch of such pictures."""
    heads_B = [0] * batch
    for judged in panel.views:
        for row in range(batch) if judged.rows is None else judged.rows:
            heads_B[row] += len(judged.heads)
    fewest, most = min(heads_B), max(heads_B)
    if fewest < most:
        yield (
            f"draw(): heads that judge a picture are {fewest} for picture {heads_B.index(fewest)}, "
            f"and {most} for picture {heads_B.index(most)}: equally many judge every picture of "
            "the batch, so that micro-batches add up to one larger batch"
        )


def _view(judged: JudgedView, batch: int) -> Findings:
    view, rows, count = judged.view, judged.rows, batch
    if not isinstance(view, View):
        yield f"a view is {_what(view)}, not a View"
        return
    if rows is not None:
        if not isinstance(rows, tuple) or any(type(row) is not int for row in rows):
            yield f"rows are {_what(rows)}, not a tuple of whole numbers of Python, or None for all"
            return
        count = len(rows)
        if not rows or list(rows) != sorted({*rows} & {*range(batch)}):
            yield f"rows {rows} are not ascending pictures from 0 to {batch - 1}"
            return
    if not isinstance(view.name, str) or not view.name:
        yield f"a view has the name {view.name!r}"
    if not isinstance(view.crop, int | float) or not 0 < view.crop <= 1:
        yield f"view '{view.name}' has crop {view.crop}, not in (0, 1]"
    yield from _timesteps(judged.t_B, count)


def _timesteps(t_B: Any, count: int) -> Findings:
    if shape_of(t_B) != (count,) or t_B.device.type != "cpu":
        yield f"t_B is {shape_of(t_B)}, not ({count},) on the CPU: one for each picture"
    elif t_B.dtype != torch.int64 and not t_B.is_floating_point():
        yield f"t_B is {t_B.dtype}; timesteps are int64, or float"
    elif not 0 <= float(t_B.min()) <= float(t_B.max()) <= 999:
        yield f"t_B leaves the range 0 to 999: {t_B.tolist()[:4]}"


def _inside(drawn: Any, heads: int, levels: int) -> bool:
    return (
        isinstance(drawn, DrawnHead) and drawn.level in range(levels) and drawn.head in range(heads)
    )


def _what(value: Any) -> str:
    return f"a tensor {shape_of(value)}" if isinstance(value, Tensor) else repr(value)[:60]

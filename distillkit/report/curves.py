"""Curves as inline SVG, by matplotlib: the smoothed line over the faint raw one, phases marked."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]

SIZE = (8.6, 2.4)
"""Width and height of a chart in inches."""
POINTS = 1200
"""Points of a line at most."""
CHARACTER = 0.008
"""Width of a character as a fraction of the chart's."""
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "text.color": "#444",
    "xtick.color": "#555",
    "ytick.color": "#555",
    "axes.edgecolor": "#bbb",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "distillkit",  # equal curves give equal files
}


class Curve(NamedTuple):
    """A named line: values by iteration."""

    name: str
    colour: str
    points: Mapping[int, float]


class Phase(NamedTuple):
    """Iterations `start` to `end` (not included)."""

    name: str
    start: int
    end: int


def chart(
    curves: Sequence[Curve],
    phases: Sequence[Phase],
    limits: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """An SVG element for a page. `limits` of the y axis, or fitted; `band`: a shaded range."""
    from matplotlib import style

    file = io.StringIO()
    with style.context(["default", STYLE]):  # and not what the user set in a matplotlibrc
        figure = draw(curves, phases, limits, band)
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    # The page has the prologue and the namespaces, sets the size, and holds several charts, in
    # which matplotlib numbers the groups alike.
    svg = re.sub(r' id="[a-z0-9_.]+_[0-9]+"', "", file.getvalue())
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    return f'<svg {box[0]} role="img"' + svg[svg.index(">", box.end()) :]


def draw(
    curves: Sequence[Curve],
    phases: Sequence[Phase],
    limits: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
) -> Figure:
    """The chart as a figure.

    Each phase is smoothed and drawn by itself: losses of two phases are different quantities.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    lines = [
        (curve, xs, np.array([curve.points[x] for x in xs]))
        for curve in curves
        for phase in phases
        if (xs := [x for x in range(phase.start, phase.end) if x in curve.points])
    ]
    faint = 0.22 if len(curves) == 1 else 0.12
    for curve, xs, ys in lines:
        _line(axes, xs, ys, color=curve.colour, linewidth=0.8, alpha=faint)
    handles = {
        curve.name: _line(axes, xs, smooth(ys), color=curve.colour, linewidth=1.4)
        for curve, xs, ys in lines
    }
    if band:
        axes.axhspan(*band, color="#2c8a4b", alpha=0.09, linewidth=0)
    start, end = phases[0].start, max(phases[-1].end, phases[0].start + 2)
    axes.set_xlim(start, end - 1)
    axes.set_ylim(limits or _fitted([ys for _, _, ys in lines]))
    _mark(axes, phases, end - start)
    if len(curves) > 1:
        names = figure.legend(
            handles.values(), handles, loc="outside lower left", ncols=len(curves)
        )
        for text in names.get_texts():
            text.set_parse_math(False)
    return figure


def smooth(values: Sequence[float] | Values) -> Values:
    """Centred running mean over a twentieth of the line or 17 values, narrower at its ends."""
    count, reach = len(values), max(8, len(values) // 40)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(count) - reach, 0)
    last = np.minimum(np.arange(count) + reach + 1, count)
    means: Values = (sums[last] - sums[first]) / (last - first)
    return means


def _line(axes: Axes, xs: Sequence[int], ys: Values, **look: Any) -> Any:
    stride = math.ceil(len(xs) / POINTS)
    marker = "." if len(xs) == 1 else ""
    return axes.plot(xs[::stride], ys[::stride], marker=marker, **look)[0]


def _fitted(lines: Sequence[Values]) -> tuple[float, float]:
    """Limits with a margin: of the smoothed lines and of 96 % of the raw values.

    Single spikes do not set the scale.
    """
    values = np.concatenate([[*smooth(ys), *np.percentile(ys, (2, 98))] for ys in lines])
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    return low - margin, high + margin


def _mark(axes: Axes, phases: Sequence[Phase], iterations: int) -> None:
    """A dashed line where a phase starts, with the phase's name where there is room for it."""
    for name, start, end in phases:
        axes.axvline(start, color="#9a9a9a", linewidth=0.8, linestyle=(0, (3, 3)))
        if (end - start) / iterations > CHARACTER * len(name):
            place = axes.get_xaxis_transform()
            axes.text(start, 1.03, f" {name}", transform=place, parse_math=False)

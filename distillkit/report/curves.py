"""Curves as inline SVG: the smoothed line over the faint raw one, phases marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 860, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 24, 24
POINTS = 1200
"""Points of a line at most."""


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


def smooth(values: Sequence[float]) -> list[float]:
    """Centred running mean over a twentieth of the line or 17 values, narrower at its ends."""
    reach = max(8, len(values) // 40)
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    spans = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[b] - sums[a]) / (b - a) for a, b in spans]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, steps of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def chart(
    curves: Sequence[Curve],
    phases: Sequence[Phase],
    limits: tuple[float, float] | None = None,
    band: tuple[float, float] | None = None,
) -> str:
    """An SVG element. `limits` of the y axis, or fitted; `band`: a range that is shaded.

    Each phase is smoothed and drawn for itself: losses of two phases are different quantities.
    """
    start, end = phases[0].start, max(phases[-1].end, phases[0].start + 2)
    pieces = [
        (curve, xs, [curve.points[x] for x in xs])
        for curve in curves
        for phase in phases
        if (xs := [x for x in range(phase.start, phase.end) if x in curve.points])
    ]
    low, high = limits or _fit([v for _, _, ys in pieces for v in [*smooth(ys), *_middle(ys)]])

    def x_at(i: float) -> float:
        return LEFT + (i - start) / (end - 1 - start) * (WIDTH - LEFT - RIGHT)

    def y_at(value: float) -> float:
        inside = min(max(value, low), high)
        return HEIGHT - BOTTOM - (inside - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def line(xs: Sequence[int], ys: Sequence[float], style: str) -> str:
        stride = math.ceil(len(xs) / POINTS)
        places = [f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in zip(xs, ys, strict=True)][::stride]
        places = places * 2 if len(places) == 1 else places
        return f'<polyline fill="none" points="{" ".join(places)}" {style}/>'

    svg = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-size="11">']
    if band:
        top, base = y_at(band[1]), y_at(band[0])
        svg.append(
            f'<rect x="{LEFT}" y="{top:.1f}" width="{WIDTH - LEFT - RIGHT}" '
            f'height="{base - top:.1f}" fill="#2c8a4b" opacity="0.09"/>'
        )
    for value in ticks(low, high):
        y = y_at(value)
        svg.append(_segment(LEFT, y, WIDTH - RIGHT, y, "#e4e4e4"))
        svg.append(_text(LEFT - 6, y + 4, f"{value:.4g}", "end"))
    for value in ticks(start, end - 1, 8):
        svg.append(_text(x_at(value), HEIGHT - 7, f"{value:g}", "middle"))
    for phase in phases:
        x = x_at(phase.start)
        svg.append(_segment(x, TOP, x, HEIGHT - BOTTOM, "#9a9a9a", "3 3"))
        if x_at(phase.end) - x > 6 * len(phase.name):
            svg.append(_text(x + 4, TOP - 6, phase.name, "start"))
    faint = 0.22 if len(curves) == 1 else 0.12
    for curve, xs, ys in pieces:
        svg.append(line(xs, ys, f'stroke="{curve.colour}" stroke-width="1" opacity="{faint}"'))
    for curve, xs, ys in pieces:
        svg.append(line(xs, smooth(ys), f'stroke="{curve.colour}" stroke-width="1.8"'))
    return "".join([*svg, "</svg>"]) + (_legend(curves) if len(curves) > 1 else "")


def _fit(values: Sequence[float]) -> tuple[float, float]:
    """Limits with a margin."""
    low, high = min(values), max(values)
    margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.1
    return low - margin, high + margin


def _middle(values: Sequence[float]) -> list[float]:
    """The values between the 2nd and the 98th percentile: single spikes do not set the scale."""
    cut = len(values) // 50
    return sorted(values)[cut : len(values) - cut]


def _segment(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-dasharray="{dashes or "none"}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(curves: Sequence[Curve]) -> str:
    keys = [f'<span><i style="background:{c.colour}"></i>{escape(c.name)}</span>' for c in curves]
    return f'<div class="legend">{"".join(keys)}</div>'

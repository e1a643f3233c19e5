"""The charts of a run's log: losses, accuracies, margins, gradients, lives of heads."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from distillkit.report.curves import Curve, Phase, chart
from distillkit.training.schedule import STUDENT_WARMUP

COLOURS = ("#1f6fb4", "#c8501e", "#2c8a4b", "#8a4fa8", "#a07a12", "#4d4d4d")

Log = Sequence[Mapping[str, Any]]
Points = dict[str, dict[int, float]]
"""Values by curve and iteration."""


def charts(log: Log) -> list[dict[str, str]]:
    """Title and SVG of each; the student's warm-up, of another scale, has a chart of its own."""
    alone = [row for row in log if row["phase"] == STUDENT_WARMUP]
    joint = [row for row in log if row["phase"] != STUDENT_WARMUP]
    found = [
        _chart("Loss of the student, warm-up", alone, _player(alone, "student")),
        _chart("Loss of the student", joint, _player(joint, "student")),
        _chart("Loss of the critics", joint, _player(joint, "critic"), first=1),
        _chart(
            "How often the critics are right, by view: 0.5 is chance",
            joint,
            by_view(joint, "accuracy"),
            limits=(0.0, 1.0),
        ),
        _chart(
            "The same on held-out pairs, which training never sees",
            joint,
            by_view(joint, "held_out"),
            limits=(0.0, 1.0),
        ),
        _chart("Logit margin (real - fake), by view", joint, by_view(joint, "margin")),
        _chart("Gradient of each loss at x_0-hat, norm", joint, _named(joint, "pull")),
        _chart(
            "Direction of each loss's step at x_0-hat: cosine with (teacher - student)",
            joint,
            _named(joint, "direction"),
        ),
        _chart("Updates of a head since its reset, median", joint, _lives(joint)),
        _chart("Distance between pictures of one prompt (x_0)", joint, _named(joint, "seeds")),
    ]
    return [item for item in found if item]


def phases_of(log: Log) -> list[Phase]:
    """Runs of iterations in one phase, in order."""
    phases: list[Phase] = []
    for row in log:
        if phases and phases[-1].name == row["phase"]:
            phases[-1] = phases[-1]._replace(end=row["iteration"] + 1)
        else:
            phases.append(Phase(row["phase"], row["iteration"], row["iteration"] + 1))
    return phases


def by_view(log: Log, what: str) -> Points:
    """A measurement by view and iteration: the mean over a view's noise levels."""
    views: dict[str, dict[int, list[float]]] = {}
    for row in log:
        for name, value in row.get(what, {}).items():
            view = re.sub(r" (t\d+|mixed t)$", "", name)
            views.setdefault(view, {}).setdefault(row["iteration"], []).append(value)
    return {
        view: {i: sum(values) / len(values) for i, values in points.items()}
        for view, points in sorted(views.items())
    }


def _player(log: Log, player: str) -> Points:
    return _collect(log, lambda row: {player: row[player]} if row[player] is not None else {})


def _named(log: Log, what: str) -> Points:
    return _collect(log, lambda row: row.get(what, {}))


def _lives(log: Log) -> Points:
    return _collect(log, lambda row: {n: h["updates"] for n, h in row.get("heads", {}).items()})


def _collect(log: Log, values: Callable[[Mapping[str, Any]], Mapping[str, float]]) -> Points:
    found: Points = {}
    for row in log:
        for name, value in values(row).items():
            found.setdefault(name, {})[row["iteration"]] = value
    return found


def _chart(
    title: str,
    log: Log,
    points: Points,
    first: int = 0,
    limits: tuple[float, float] | None = None,
) -> dict[str, str]:
    """Nothing where there are no points. `first`: the colour of the first curve."""
    if not points:
        return {}
    colours = [*COLOURS[first:], *COLOURS] * len(points)
    named = zip(colours, points.items(), strict=False)
    curves = [Curve(name, colour, values) for colour, (name, values) in named]
    return {"title": title, "svg": chart(curves, phases_of(log), limits=limits)}

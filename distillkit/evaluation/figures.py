"""Metrics of rows, each measured once: what was found is kept in files named by what it depends on.

A file's name ends in a digest of the row (weights, steps, prompts, seed, number of pictures), of
the metrics part with its fields and its package's version, and of the files that it reads. So a row
that did not change isn't measured again, and often not even drawn.

Legend: B pictures of a set.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.atomic import write_text
from distillkit.contracts import Metrics, Pictures
from distillkit.evaluation.metrics_set import MetricsSet, measure, some
from distillkit.evaluation.rows import Row
from distillkit.samples.fingerprint import KEY, differing, plain
from distillkit.values import Measurement

FEWEST = 16
"""Pictures a row that it takes to halve the sets for the floor's spread."""
HALVES = ("floor_half_mean", "floor_half_spread")

Get = Callable[[], Any]
"""Draws or opens pictures when they are needed."""


@dataclass(frozen=True)
class Figures:
    """Measures rows, or reads what it measured before."""

    metrics: MetricsSet
    folder: Path
    prompts: Sequence[str]
    tell: Callable[[str, str], None] = lambda row, part: None
    """Called before a part measures a row, with their names."""

    def known(self, row: str, identity: Mapping[str, Any]) -> bool:
        """Whether all of the row's figures are there."""
        return all(_read(self._file(part, row, identity), identity) for part in self.metrics.each())

    def row(self, row: str, identity: Mapping[str, Any], images: Get, teacher: Get) -> Measurement:
        """The row's metrics. Pictures are asked for only where a part has not measured them."""
        values: dict[str, float | None] = {}
        per_picture: dict[str, Sequence[float]] = {}
        for part in self.metrics.each():
            found = self._kept(part, row, identity, images, teacher)
            values |= found["values"]
            per_picture |= found["per_picture"]
        return Measurement(values, per_picture)  # type: ignore[arg-type]

    def spread(
        self, row: str, identity: Mapping[str, Any], images: Get, teacher: Get
    ) -> dict[str, float]:
        """`floor_spread` of the row, by the part whose metric has the floor."""
        name = floor_metric(self.metrics)
        parts = [part for part in self.metrics.each() if name in part.info]
        if not parts or len(self.prompts) < FEWEST:
            return {}
        halves = self._kept(parts[0], f"{row}-halves", identity, images, teacher)["values"]
        return {} if None in halves.values() else halves

    def _kept(
        self, part: MetricsSet, row: str, identity: Mapping[str, Any], images: Get, teacher: Get
    ) -> dict[str, Any]:
        """The file's content; measured and written where there is none."""
        file = self._file(part, row, identity)
        if kept := _read(file, identity):
            return kept
        self.tell(row, part.configs[0].name())
        against, own = teacher(), images()
        if row.endswith("-halves"):
            halves = floor_spread(part, own, self.prompts, against)
            found = Measurement({name: halves.get(name, math.nan) for name in HALVES})
        else:
            found = part.measure(own, self.prompts, against)
        numbers = {
            "values": finite(found.values),
            "per_picture": {
                name: [float(f"{value:.6g}") for value in values]
                for name, values in found.per_picture.items()
            },
        }
        write_text(file, json.dumps(numbers | {KEY: identity.get(KEY)}) + "\n")
        return numbers

    def _file(self, part: MetricsSet, row: str, identity: Mapping[str, Any]) -> Path:
        config = part.configs[0]
        depends = {
            "row": plain(identity),
            "part": config.model_dump(mode="json", exclude=set(config.same_result)),
            "by": part.guards[0].label,
            "files": [_stamp(path) for path in config.inputs()],
        }
        digest = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{row}-{config.name()}-{digest}.json"


def tabulate(
    rows: Iterable[Row],
    figures: Figures,
    identity: Callable[[Row], Mapping[str, Any]],
    images: Callable[[Row], Get],
    teacher: Get,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metrics by row, with the floor's summary; and the values of single pictures by row."""
    table: dict[str, Any] = {}
    singles: dict[str, Any] = {}
    halves: dict[str, float] = {}
    for row in rows:
        which, get = identity(row), images(row)
        found = figures.row(row.key, which, get, teacher)
        table[row.key] = dict(found.values) | {"num_images": len(figures.prompts)}
        singles[row.key] = dict(found.per_picture)
        if row.snapshot is None:
            halves = figures.spread(row.key, which, get, teacher)
    return table | summary(table, floor_metric(figures.metrics), halves), singles


def floor_metric(metrics: Metrics | MetricsSet) -> str | None:
    """The first metric with a floor: the distance that the summary is about."""
    return next((name for name, info in metrics.info.items() if info.floor), None)


def summary(
    table: Mapping[str, Any], distance: str | None, halves: Mapping[str, float]
) -> dict[str, Any]:
    """The floor of `distance`, its spread, and how far above it every row is.

    `excess_ratio` is the student's excess at one step over the start's: 0 is as good as the
    teacher, 1 is no better than the start.
    """
    floor = None if distance is None else table.get("teacher", {}).get(distance)
    if floor is None:
        return {}
    distances = {key: row.get(distance) for key, row in table.items() if key != "teacher"}
    excess = {key: d - floor for key, d in distances.items() if d is not None}
    ratio = None
    if excess.get("start", 0) > 0 and "student_1" in excess:
        ratio = excess["student_1"] / excess["start"]
    return {
        f"floor_{distance}": floor,
        "summary": {"metric": distance, "floor": floor, "excess": excess, "excess_ratio": ratio}
        | dict(halves),
    }


def floor_spread(
    metrics: Any, own: Pictures, prompts: Sequence[str], reference: Pictures
) -> dict[str, float]:
    """The floor from half as many pictures: each half of `own` against its half of `reference`.

    `floor_half_mean` and `floor_half_spread` (their difference). Distances of distributions
    fall with the number of pictures, so the mean lies above the floor of the whole; the spread says
    roughly how far another choice of pictures would move the floor.
    """
    distance, half = floor_metric(metrics), len(own) // 2
    if distance is None or len(own) < FEWEST:
        return {}
    floors = []
    for part in (slice(0, half), slice(half, 2 * half)):
        found = measure(metrics, some(own, part), prompts[part], some(reference, part))
        floors.append(found.values.get(distance, math.nan))
    if not all(map(math.isfinite, floors)):
        return {}
    mean, spread = sum(floors) / len(floors), max(floors) - min(floors)
    return dict(zip(HALVES, (mean, spread), strict=True))


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN and no infinity: None in their place."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _read(file: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured of a row; nothing where it was of a teacher that computed with another
    noise schedule or tokenizer, which the file's name does not tell."""
    try:
        there = dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
    return {} if differing(there.get(KEY), identity.get(KEY)) else there


def _stamp(path: str) -> list[Any]:
    """Name, sizes and times of a file, or of the files in a folder."""
    place = Path(path)
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    stats = [(str(file), file.stat()) for file in files if file.is_file()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]

"""Several metrics parts as one: they judge the same pictures of the same prompts.

Legend: B pictures of a set, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from distillkit.configs import MetricsConfig
from distillkit.contracts import Metrics, Pictures
from distillkit.errors import UserError
from distillkit.training.build import build_part, part_label
from distillkit.training.guard import Guard
from distillkit.values import Measurement, MetricInfo


@dataclass(frozen=True)
class MetricsSet:
    """All of a recipe's or a command's metrics; the first part gives the prompts."""

    parts: Sequence[Metrics]
    guards: Sequence[Guard]
    configs: Sequence[MetricsConfig]

    @staticmethod
    def build(configs: Sequence[MetricsConfig]) -> MetricsSet:
        """Build every part. Raises `UserError` where two of them return one metric."""
        made = MetricsSet(
            [build_part(config) for config in configs],
            [Guard(part_label(config)) for config in configs],
            configs,
        )
        owners: dict[str, str] = {}
        for part, guard in zip(made.parts, made.guards, strict=True):
            for name in part.info:
                if name in owners:
                    raise UserError(
                        f"metrics: '{name}' is computed by {owners[name]} and by {guard.label}; "
                        "leave one of them out"
                    )
                owners[name] = guard.label
        return made

    def each(self) -> list[MetricsSet]:
        """One set a part."""
        everything = zip(self.parts, self.guards, self.configs, strict=True)
        return [MetricsSet([part], [guard], [config]) for part, guard, config in everything]

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        """Of every metric, part after part."""
        return {name: info for part in self.parts for name, info in part.info.items()}

    def prompts(self, count: int, seed: int) -> list[str]:
        """Those of the first part."""
        with self.guards[0]("prompts()"):
            return self.parts[0].prompts(count, seed)

    def measure(
        self, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
    ) -> Measurement:
        """Every metric of the pictures."""
        values: dict[str, float] = {}
        per_picture: dict[str, Sequence[float]] = {}
        for part, guard in zip(self.parts, self.guards, strict=True):
            with guard("measure()" if hasattr(part, "measure") else "compute()"):
                found = measure(part, images, prompts, teacher)
            guard.once("measure()", lambda: _flaw(found, len(prompts)))  # noqa: B023
            values |= found.values
            per_picture |= found.per_picture
        return Measurement(values, per_picture)


def measure(
    part: Metrics, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
) -> Measurement:
    """What a part finds: by its own `measure`, or by `compute` of the whole pictures."""
    own: Any = getattr(part, "measure", None)
    if own is not None:
        return own(images, prompts, teacher)
    return Measurement(part.compute(whole(images), prompts, whole(teacher)))


def whole(pictures: Any) -> Tensor:
    """All of the pictures at once."""
    return pictures[0 : len(pictures)]


def some(pictures: Any, rows: slice) -> Pictures:
    """Some of the pictures: those on disk stay there."""
    return pictures[rows] if isinstance(pictures, Tensor) else pictures.part(rows)


def _flaw(found: Any, count: int) -> str | None:
    """What is wrong with a measurement, if anything."""
    if not isinstance(found, Measurement):
        return f"returned a {type(found).__name__}, not a Measurement"
    for name, values in found.per_picture.items():
        if len(values) != count:
            return f"returned {len(values)} values of '{name}' for {count} pictures"
    return None

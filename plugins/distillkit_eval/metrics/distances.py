"""Distances of two sets of pictures in a network's features: to real pictures, to the teacher's.

Legend: N pictures, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.randomness import generator
from distillkit.values import Measurement, MetricInfo
from distillkit_eval.base import Extractor, prompts_of
from distillkit_eval.configs import DistanceConfig
from distillkit_eval.pictures import RealPictures
from distillkit_eval.statistics import frechet_distance, kernel_distance, precision_recall

Compute = Callable[[Tensor, Tensor], Sequence[float]]
"""Features of the pictures and of what they are compared with -> the statistic's values."""


class Statistic(NamedTuple):
    """One computation, of one value or two."""

    names: tuple[str, ...]
    infos: tuple[MetricInfo, ...]
    compute: Compute


def frechet(name: str, title: str, features: str) -> Statistic:
    """The Fréchet distance."""
    text = f"Fréchet distance in {features}; falls with the number of pictures."
    info = MetricInfo(title, text, better="lower", floor=True)
    return Statistic((name,), (info,), lambda a_NF, b_NF: (frechet_distance(a_NF, b_NF),))


def kernel(name: str, title: str, features: str, seed: int) -> Statistic:
    """The kernel distance."""
    text = f"Kernel distance in {features}; does not depend on the number of pictures."
    info = MetricInfo(title, text, better="lower", floor=True)
    return Statistic(
        (name,),
        (info,),
        lambda a_NF, b_NF: (kernel_distance(a_NF, b_NF, generator(seed, "kernel distance")),),
    )


def precision(prefix: str, features: str) -> Statistic:
    """Precision and recall."""
    infos = (
        MetricInfo(
            "precision",
            f"Share of pictures that lie among those compared with, in {features}.",
            better="higher",
        ),
        MetricInfo(
            "recall",
            f"Share of those compared with that lie among the pictures, in {features}: diversity.",
            better="higher",
        ),
    )
    return Statistic((f"{prefix}precision", f"{prefix}recall"), infos, precision_recall)


@dataclass(frozen=True)
class Distances:
    """`contracts.Metrics` of every statistic, against the real pictures and the teacher's."""

    config: DistanceConfig
    statistics: Sequence[Statistic]
    features: Extractor

    @cached_property
    def real(self) -> RealPictures | None:
        """The folder's pictures."""
        return None if self.config.reference is None else RealPictures(self.config.reference)

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        found: dict[str, MetricInfo] = {}
        for statistic in self.statistics:
            for name, info in zip(statistic.names, statistic.infos, strict=True):
                if self.config.reference is not None:
                    found[name] = _to(info, "", " Against the real pictures.")
                if self.config.teacher:
                    said = " Against the teacher's of the same prompts and other noise."
                    found[f"{name}_teacher"] = _to(info, " to teacher", said)
        return found

    def prompts(self, count: int, seed: int) -> list[str]:
        return prompts_of(self.config.prompts, count, seed)

    def measure(
        self, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
    ) -> Measurement:
        own_NF = self.features(images)
        against: dict[str, Pictures] = {}
        if self.real is not None:
            against[""] = self.real
        if self.config.teacher and teacher is not None:
            against["_teacher"] = teacher
        values: dict[str, float] = {}
        for end, pictures in against.items():
            other_NF = self.features(pictures)
            for statistic in self.statistics:
                found = statistic.compute(own_NF, other_NF)
                values |= {f"{n}{end}": v for n, v in zip(statistic.names, found, strict=True)}
        return Measurement(values)

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        return self.measure(images_B3HW, prompts, teacher_B3HW).values


def _to(info: MetricInfo, title: str, text: str) -> MetricInfo:
    """The same for one of the sets; only the teacher's own distance to its pictures is a floor."""
    return MetricInfo(
        f"{info.title}{title}", f"{info.description}{text}", info.better, info.floor and bool(title)
    )

"""Metrics that need no network: how bright the pictures are, and how far from the teacher's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import MetricsConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.values import MetricInfo


@dataclass(frozen=True)
class ExampleMetrics:
    """Mean brightness, and the squared distance of the mean pictures."""

    subject: str

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        from distillkit.values import MetricInfo

        return {
            "distance": MetricInfo(
                "distance", "Squared distance of the mean pictures.", better="lower", floor=True
            ),
            "brightness": MetricInfo("brightness", "Mean of all pixels.", better="teacher"),
        }

    def prompts(self, count: int, seed: int) -> list[str]:
        return [f"{self.subject}, number {seed + i}" for i in range(count)]

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        gap_3HW = images_B3HW.mean(0) - teacher_B3HW.mean(0)
        return {
            "brightness": float(images_B3HW.mean()),
            "distance": float(gap_3HW.square().mean()),
        }


class ExampleMetricsConfig(MetricsConfig):
    """Brightness, and the distance of mean pictures."""

    type: Literal["example"] = "example"
    subject: str = Field("a star", min_length=1)
    """What the prompts ask for."""

    def build(self) -> ExampleMetrics:
        return ExampleMetrics(self.subject)


@hookimpl
def distillkit_register_metrics() -> list[type[MetricsConfig]]:
    return [ExampleMetricsConfig]

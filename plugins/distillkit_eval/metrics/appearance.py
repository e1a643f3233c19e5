"""Detail and saturation beside the teacher's: what one-step students lose or overdo first.

Legend: B pictures, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.values import Measurement, MetricInfo
from distillkit_eval.base import prompts_of
from distillkit_eval.configs import AppearanceConfig

INFO = {
    "detail_ratio": MetricInfo(
        "detail",
        "Mean brightness gradient over the teacher's: below 1 is blurred, above 1 grainy.",
        better="teacher",
    ),
    "saturation_ratio": MetricInfo(
        "saturation",
        "Mean distance of a pixel's largest and least channel over the teacher's: below 1 is pale, "
        "above 1 garish.",
        better="teacher",
    ),
}


@dataclass(frozen=True)
class Appearance:
    """`contracts.Metrics`: ratios of means over pictures."""

    config: AppearanceConfig
    info = INFO

    def prompts(self, count: int, seed: int) -> list[str]:
        return prompts_of(self.config.prompts, count, seed)

    def measure(
        self, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
    ) -> Measurement:
        assert teacher is not None, "needs_teacher"
        own, theirs = _means(images), _means(teacher)
        values = {name: float(a / b) for name, a, b in zip(INFO, own, theirs, strict=True)}
        return Measurement(values)

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        return self.measure(images_B3HW, prompts, teacher_B3HW).values


def detail(x_B3HW: Tensor) -> Tensor:
    """Mean magnitude of the brightness gradient of each picture, per pixel step, (B,)."""
    grey_BHW = x_B3HW.double().mean(1)
    across, down = grey_BHW.diff(dim=2)[:, :-1], grey_BHW.diff(dim=1)[:, :, :-1]
    return torch.hypot(across, down).mean((1, 2))


def saturation(x_B3HW: Tensor) -> Tensor:
    """Mean of (largest channel - least channel) of each picture, (B,)."""
    x_B3HW = x_B3HW.double()
    return (x_B3HW.amax(1) - x_B3HW.amin(1)).mean((1, 2))


def _means(pictures: Pictures) -> tuple[Tensor, Tensor]:
    found = [(detail(x), saturation(x)) for x in _each(pictures)]
    details, saturations = zip(*found, strict=True)
    return torch.cat(details).mean(), torch.cat(saturations).mean()


def _each(pictures: Pictures) -> Iterator[Tensor]:
    for n in range(len(pictures)):
        yield pictures[n : n + 1]


def build(config: AppearanceConfig) -> Appearance:
    """`detail_ratio` and `saturation_ratio`."""
    return Appearance(config)

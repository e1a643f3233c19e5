"""Several metrics parts of a recipe as one: they judge the same pictures of the same prompts.

Legend: B pictures of a set, H, W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from distillkit.configs import MetricsConfig
from distillkit.contracts import Metrics
from distillkit.errors import UserError
from distillkit.training.build import build_part, part_label
from distillkit.training.guard import Guard
from distillkit.values import MetricInfo


@dataclass(frozen=True)
class MetricsSet:
    """Fulfils `contracts.Metrics` for all of its parts together; the first gives the prompts."""

    parts: Sequence[Metrics]
    guards: Sequence[Guard]

    @staticmethod
    def build(configs: Sequence[MetricsConfig]) -> MetricsSet:
        """Build every part. Raises `UserError` where two of them return one metric."""
        made = MetricsSet(
            [build_part(config) for config in configs],
            [Guard(part_label(config)) for config in configs],
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

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        """Of every metric, part after part."""
        return {name: info for part in self.parts for name, info in part.info.items()}

    def prompts(self, count: int, seed: int) -> list[str]:
        """Those of the first part."""
        with self.guards[0]("prompts()"):
            return self.parts[0].prompts(count, seed)

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> dict[str, float]:
        """Every metric of the pictures."""
        values: dict[str, float] = {}
        for part, guard in zip(self.parts, self.guards, strict=True):
            with guard("compute()"):
                values |= part.compute(images_B3HW, prompts, teacher_B3HW)
        return values

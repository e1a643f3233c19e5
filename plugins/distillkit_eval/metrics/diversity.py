"""How different the pictures of one prompt are, over its seeds.

Legend: N pictures, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.errors import UserError
from distillkit.values import Measurement, MetricInfo
from distillkit_eval.base import prompts_of
from distillkit_eval.configs import DiversityConfig
from distillkit_eval.metrics.dino import dino_features
from distillkit_eval.statistics import pairwise_distance, vendi_score


@dataclass(frozen=True)
class Diversity:
    """`contracts.Metrics`: means over the prompts that have several pictures."""

    config: DiversityConfig
    features: Callable[[Pictures], Tensor]

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        where = f"in {self.config.model}'s features"
        return {
            "seed_distance": MetricInfo(
                "distance of seeds",
                f"Mean of 1 - cosine over the pictures of one prompt, {where}; 0 is one picture.",
                better="teacher",
            ),
            "vendi": MetricInfo(
                "Vendi score",
                f"Effective number of different pictures of one prompt, {where}; grows with the "
                "number of its pictures.",
                better="teacher",
            ),
        }

    def prompts(self, count: int, seed: int) -> list[str]:
        return prompts_of(self.config.prompts, count, seed, each=2)

    def measure(
        self, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
    ) -> Measurement:
        by_prompt: dict[str, list[int]] = {}
        for number, prompt in enumerate(prompts):
            by_prompt.setdefault(prompt, []).append(number)
        groups = [numbers for numbers in by_prompt.values() if len(numbers) > 1]
        if not groups:
            raise UserError(
                "diversity: no prompt has several pictures; draw some of each (--per-prompt 4)"
            )
        features_NF = self.features(images)
        distances = [pairwise_distance(features_NF[group]) for group in groups]
        scores = [vendi_score(features_NF[group]) for group in groups]
        return Measurement(
            {
                "seed_distance": sum(distances) / len(distances),
                "vendi": sum(scores) / len(scores),
            }
        )

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        return self.measure(images_B3HW, prompts, teacher_B3HW).values


def build(config: DiversityConfig) -> Diversity:
    """`seed_distance` and `vendi`."""
    return Diversity(config, dino_features(config.model, config.batch, config.device))

"""Metrics of the shapes world: captions by the oracle, distances in the world's own features.

Legend: B pictures, F = 64 features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import MetricsConfig
from distillkit.randomness import generator
from distillkit.values import MetricInfo
from distillkit_shapes.prompts import sample_captions

if TYPE_CHECKING:
    from torch import Tensor

_NO_FID = (
    "This is not FID, whose features come from another network: compare it with other runs on this "
    "world with as many pictures, not with published numbers."
)
INFO = {
    "caption_accuracy": MetricInfo(
        "caption accuracy",
        "Share of pictures in which the world's oracle finds all that the caption says.",
        better="higher",
    ),
    "frechet_teacher": MetricInfo(
        "Fréchet to teacher",
        "Fréchet distance to the teacher's pictures of other noise, in the 64 features of the "
        f"world's own classifier. {_NO_FID}",
        better="lower",
        floor=True,
    ),
    "frechet_true": MetricInfo(
        "Fréchet to truth",
        "The same distance to fresh true pictures: what the student lost, or mended, together with "
        "what its teacher had lost.",
        better="lower",
    ),
    "kid_teacher": MetricInfo(
        "KID to teacher",
        "Kernel distance to the teacher's pictures in the same features; unlike the Fréchet "
        "distance it does not fall with the number of pictures. The teacher's own is a little "
        "below 0, since both sets have the same captions.",
        better="teacher",
    ),
    "sharpness_ratio": MetricInfo(
        "sharpness",
        "Fine detail relative to the teacher's: below 1 is blurred, above 1 grainy.",
        better="teacher",
    ),
    "extra_objects": MetricInfo(
        "extra objects",
        "Share of pictures with more objects than the caption asks for.",
        better="lower",
    ),
}
"""Every metric that `ShapesMetrics.compute` returns."""


class ShapesMetrics:
    """`distillkit.contracts.Metrics`: against captions, the teacher's pictures, fresh true ones."""

    info = INFO

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._true: dict[tuple[str, ...], Tensor] = {}

    def prompts(self, count: int, seed: int) -> list[str]:
        """Captions that training never sees."""
        return sample_captions(count, seed, held_out=True)

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> dict[str, float]:
        """Each metric of `INFO`, of the pictures beside the teacher's."""
        from distillkit_shapes.distances import frechet_distance, kernel_distance, sharpness
        from distillkit_shapes.features import features
        from distillkit_shapes.oracle import agreement
        from distillkit_shapes.scenes import codes_of

        found = agreement(images_B3HW, codes_of(list(prompts)))
        student_BF, teacher_BF = features(images_B3HW), features(teacher_B3HW)
        # Subsets of KID are at most half of the set, so that they differ from each other.
        kid, _ = kernel_distance(
            student_BF,
            teacher_BF,
            generator(self.seed, "kid"),
            size=min(500, len(student_BF) // 2),
        )
        return {
            "caption_accuracy": found.captions,
            "frechet_teacher": frechet_distance(student_BF, teacher_BF),
            "frechet_true": frechet_distance(student_BF, self._true_features(tuple(prompts))),
            "kid_teacher": kid,
            "sharpness_ratio": sharpness(images_B3HW) / sharpness(teacher_B3HW),
            "extra_objects": found.extra_objects,
        }

    def _true_features(self, prompts: tuple[str, ...]) -> Tensor:
        """Features of fresh true pictures of these captions; rendered once."""
        from distillkit_shapes.features import features
        from distillkit_shapes.pictures import render
        from distillkit_shapes.scenes import codes_of

        if prompts not in self._true:
            codes_NA = codes_of(list(prompts))
            self._true[prompts] = features(render(codes_NA, generator(self.seed, "true pictures")))
        return self._true[prompts]


class ShapesMetricsConfig(MetricsConfig):
    """Captions by the oracle, and distances in the features of the world's own classifier."""

    type: Literal["shapes"] = "shapes"
    num_images: int = Field(2000, ge=4)
    """Pictures behind every row of the metrics' table; distances of fewer are undefined."""

    def build(self) -> ShapesMetrics:
        return ShapesMetrics(self.seed)

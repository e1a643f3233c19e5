"""Metrics of the shapes world: captions by the oracle, distances in the world's own features.

Legend: B pictures, F = 64 features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit.configs import MetricsConfig
from distillkit.randomness import generator
from distillkit.values import Measurement, MetricInfo
from distillkit_shapes.prompts import sample_captions

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.contracts import Pictures
    from distillkit_shapes.oracle import Agreement

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
        f"world's own classifier. {_NO_FID} The classifier was trained on blurred and noised "
        "pictures and forgives both.",
        better="lower",
        floor=True,
    ),
    "frechet_true": MetricInfo(
        "Fréchet to truth",
        "The same distance to fresh true pictures: what the student lost, or mended, together with "
        "what its teacher had lost.",
        better="lower",
        main=False,
    ),
    "kid_teacher": MetricInfo(
        "KID to teacher",
        "Kernel distance to the teacher's pictures in the same features; unlike the Fréchet "
        "distance it does not fall with the number of pictures. The teacher's own is a little "
        "below 0, since both sets have the same captions.",
        better="teacher",
        main=False,
    ),
    "sharpness_ratio": MetricInfo(
        "sharpness",
        "Fine detail relative to the teacher's: below 1 is blurred, above 1 grainy.",
        better="teacher",
    ),
    "told_apart": MetricInfo(
        "told apart",
        "How often a small net, trained on half of the pictures, says of a picture of the row and "
        "one of the teacher's of the same caption which is which: 0.5 is chance, and 1 is always.",
        better="lower",
        floor=True,
    ),
    "spectrum_distance": MetricInfo(
        "spectrum, dB",
        "How far the pictures' mean power spectrum is from the teacher's, over all frequencies, in "
        "decibels: blur and grain alike move it.",
        better="lower",
        floor=True,
    ),
    "diversity_ratio": MetricInfo(
        "diversity",
        "Distance in the classifier's features between pictures of one caption, relative to the "
        "teacher's; of pictures that show what the caption says, since errors are no variety.",
        better="teacher",
        partial=True,
    ),
    "extra_objects": MetricInfo(
        "extra objects",
        "Share of pictures with more objects than the caption asks for.",
        better="lower",
        main=False,
    ),
} | {
    f"captions_{kind}": MetricInfo(
        f"captions, {kind}",
        f"Caption accuracy of captions with {what}.",
        better="higher",
        main=False,
        partial=True,
    )
    for kind, what in (
        ("one", "one object"),
        ("two", "two equal objects"),
        ("three", "three equal objects"),
        ("pair", "two objects that differ"),
    )
}
"""Every metric that `ShapesMetrics.compute` returns."""


@dataclass(frozen=True)
class _Measured:
    """What is compared of a set of pictures."""

    features_BF: Tensor
    agreement: Agreement
    sharpness: float
    spectrum_R: Tensor


def _measured(images_B3HW: Tensor, prompts: Sequence[str]) -> _Measured:
    from distillkit_shapes.distances import log_power, sharpness
    from distillkit_shapes.features import features
    from distillkit_shapes.oracle import agreement
    from distillkit_shapes.scenes import codes_of

    return _Measured(
        features(images_B3HW),
        agreement(images_B3HW, codes_of(list(prompts))),
        sharpness(images_B3HW),
        log_power(images_B3HW),
    )


class ShapesMetrics:
    """`distillkit.contracts.Metrics`: against captions, the teacher's pictures, fresh true ones."""

    info = INFO

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._true: dict[tuple[str, ...], Tensor] = {}
        self._teacher: tuple[Any, Tensor, _Measured] | None = None

    def prompts(self, count: int, seed: int) -> list[str]:
        """Captions that training never sees."""
        return sample_captions(count, seed, held_out=True)

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        """Each metric of `INFO`, of the pictures beside the teacher's."""
        return self.measure(images_B3HW, prompts, teacher_B3HW).values

    def measure(
        self, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
    ) -> Measurement:
        """The same, and of each picture whether it shows what its caption says."""
        assert teacher is not None, "needs_teacher"
        images_B3HW, teacher_B3HW = images[0 : len(images)], teacher[0 : len(teacher)]
        own = _measured(images_B3HW, prompts)
        values = self._values(own, images_B3HW, prompts, teacher_B3HW)
        right = [float(value) for value in own.agreement.right_N]
        return Measurement(values, {"caption_accuracy": right})

    def _values(
        self,
        own: _Measured,
        images_B3HW: Tensor,
        prompts: Sequence[str],
        teacher_B3HW: Tensor,
    ) -> dict[str, float]:
        from distillkit_shapes.distances import frechet_distance, kernel_distance, spectrum_distance
        from distillkit_shapes.two_sample import told_apart

        teacher = self._of_teacher(teacher_B3HW, prompts)
        # Subsets of KID are at most half of the set, so that they differ from each other.
        kid, _ = kernel_distance(
            own.features_BF,
            teacher.features_BF,
            generator(self.seed, "kid"),
            size=min(500, len(prompts) // 2),
        )
        true_BF = self._true_features(tuple(prompts))
        values = {
            "caption_accuracy": own.agreement.captions,
            "frechet_teacher": frechet_distance(own.features_BF, teacher.features_BF),
            "frechet_true": frechet_distance(own.features_BF, true_BF),
            "kid_teacher": kid,
            "sharpness_ratio": own.sharpness / teacher.sharpness,
            "told_apart": told_apart(images_B3HW, teacher_B3HW, generator(self.seed, "told apart")),
            "spectrum_distance": spectrum_distance(own.spectrum_R, teacher.spectrum_R),
            "diversity_ratio": _diversity(own, teacher, prompts),
            "extra_objects": own.agreement.extra_objects,
        }
        kinds = own.agreement.kinds.items()
        return values | {f"captions_{kind}": share for kind, share in kinds}

    def _of_teacher(self, teacher_B3HW: Tensor, prompts: Sequence[str]) -> _Measured:
        """Of the teacher's pictures, which all rows are compared with: the last are remembered."""
        key = (teacher_B3HW.data_ptr(), teacher_B3HW.shape, teacher_B3HW._version, tuple(prompts))
        if self._teacher is None or self._teacher[0] != key:
            # The pictures are held, so that no others can have their address.
            self._teacher = key, teacher_B3HW, _measured(teacher_B3HW, prompts)
        return self._teacher[2]

    def _true_features(self, prompts: tuple[str, ...]) -> Tensor:
        """Features of fresh true pictures of these captions; rendered once."""
        from distillkit_shapes.features import features
        from distillkit_shapes.pictures import render
        from distillkit_shapes.scenes import codes_of

        if prompts not in self._true:
            codes_NA = codes_of(list(prompts))
            self._true[prompts] = features(render(codes_NA, generator(self.seed, "true pictures")))
        return self._true[prompts]


def _diversity(own: _Measured, teacher: _Measured, prompts: Sequence[str]) -> float:
    """Mean distance within captions of which both sets have two pictures that are right; NaN where
    there is no such caption."""
    from distillkit_shapes.distances import variety

    found = []
    for each in (own, teacher):
        groups: dict[str, list[int]] = {}
        for row in each.agreement.right_N.nonzero().flatten().tolist():
            groups.setdefault(prompts[row], []).append(row)
        found.append(variety(each.features_BF, groups))
    both = found[0].keys() & found[1].keys()
    ours, theirs = (sum(distances[name] for name in both) for distances in found)
    return ours / theirs if theirs else math.nan


class ShapesMetricsConfig(MetricsConfig):
    """Captions by the oracle, and distances in the features of the world's own classifier."""

    type: Literal["shapes"] = "shapes"
    num_images: int = Field(2000, ge=4)
    """Pictures behind every row of the metrics' table; distances of fewer are undefined."""

    def build(self) -> ShapesMetrics:
        return ShapesMetrics(self.seed)

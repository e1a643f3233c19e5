"""Figures of pictures of the shapes world, as `distillkit.contracts.Metrics` asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from distillkit.randomness import generator
from distillkit_shapes.features import features
from distillkit_shapes.metrics import frechet_distance, kernel_distance, sharpness
from distillkit_shapes.oracle import agreement
from distillkit_shapes.pictures import draw
from distillkit_shapes.prompts import draw_captions
from distillkit_shapes.scenes import codes_of


class Judge:
    """Compares pictures with their captions, with the teacher's, and with fresh true ones."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._true: dict[tuple[str, ...], Tensor] = {}

    def prompts(self, count: int, seed: int) -> list[str]:
        """Captions that training never sees."""
        return draw_captions(count, seed, held_out=True)

    def figures(
        self, pictures_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> dict[str, float]:
        """Figures of the pictures beside the teacher's.

        caption_accuracy: share of pictures in which the oracle finds all that the caption says.
        frechet_teacher, kid_teacher: distances to the teacher's pictures in the 64 features of
        the world's own classifier (not Inception's: this is no FID). frechet_true: to fresh true
        pictures of the same captions. sharpness_ratio: to the teacher's. extra_objects: share of
        pictures with more objects than the caption says.
        """
        found = agreement(pictures_B3HW, codes_of(list(prompts)))
        own, teacher = features(pictures_B3HW), features(teacher_B3HW)
        true = self._true_features(tuple(prompts))
        return {
            "caption_accuracy": found.captions,
            "frechet_teacher": frechet_distance(own, teacher),
            "frechet_true": frechet_distance(own, true),
            "kid_teacher": kernel_distance(
                own, teacher, generator(self.seed, "kid"), size=min(500, len(own) // 2)
            )[0],
            "sharpness_ratio": sharpness(pictures_B3HW) / sharpness(teacher_B3HW),
            "extra_objects": found.extra_objects,
        }

    def _true_features(self, prompts: tuple[str, ...]) -> Tensor:
        """Features of fresh true pictures of these captions; drawn once."""
        if prompts not in self._true:
            codes = codes_of(list(prompts))
            self._true[prompts] = features(draw(codes, generator(self.seed, "true pictures")))
        return self._true[prompts]

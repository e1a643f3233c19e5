"""Which caches of teacher samples a recipe fills: before it trains, and when it is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from distillkit.contracts import PromptSource, Teacher
from distillkit.evaluation.evaluate import GRID_SEED, make_sets
from distillkit.evaluation.rows import GRID
from distillkit.recipe.schema import Recipe
from distillkit.samples.cache import (
    SampleCache,
    capped,
    evaluation_cache,
    is_shipped,
    pictures_cache,
    training_cache,
)
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.samples.pictures import PictureLatents
from distillkit.training.build import Parts, build_part, freeze, make_pictures

Named = tuple[str, SampleCache, TeacherSamples | PictureLatents]
"""A cache with its name for readers, and what fills it."""
EVALUATED = ("evaluation's samples", "reference's samples", "grids' samples")


def caches_of(recipe: Recipe, device: Any) -> list[Named]:
    """Training's, of the teacher's samples and of real pictures, and every set's that is evaluated.

    Builds teacher and prompts. Raises `UserError` where one holds other samples, or would be larger
    than the recipe allows.
    """
    teacher = build_part(recipe.teacher)
    freeze(teacher.modules())
    teacher.to(device)
    found = _caches(recipe, teacher, build_part(recipe.prompts), device)
    return [(what, capped(recipe, cache, samples), samples) for what, cache, samples in found]


def check_caches(recipe: Recipe, parts: Parts, device: Any) -> None:
    """Raise `UserError` where a run of these parts would stop at one of its caches, though it be
    the evaluation's; a run writes none of those into a package."""
    for what, cache, samples in _caches(recipe, parts.teacher, parts.prompts, device):
        if what not in EVALUATED or not is_shipped(recipe.samples):
            capped(recipe, cache, samples)


def evaluation_caches(recipe: Recipe, parts: Parts, device: Any) -> list[Named]:
    """Those of the sets that are evaluated, which a run of these parts fills: none in a package."""
    if is_shipped(recipe.samples):
        return []
    caches = _caches(recipe, parts.teacher, parts.prompts, device)
    return [named for named in caches if named[0] in EVALUATED]


def _caches(
    recipe: Recipe, teacher: Teacher, prompts: PromptSource, device: Any
) -> Iterator[Named]:
    config = recipe.samples
    order = SampleOrder(prompts, config.seed, config.count, recipe.run.seed)
    training = TeacherSamples(teacher, order, device)
    if cache := training_cache(recipe, training):
        yield "training's samples", cache, training
    pictures = make_pictures(recipe, teacher, prompts, device)
    if pictures is not None and (latents := pictures_cache(recipe, pictures)):
        yield "real pictures", latents, pictures
    if config.cache is None:
        return

    def make(texts: Sequence[str], seed: int) -> TeacherSamples:
        return TeacherSamples(teacher, SampleOrder(texts, seed), device)

    for what, samples, count in evaluated_sets(recipe, prompts, make):
        if cache := evaluation_cache(recipe, samples, count):
            yield what, cache, samples


def evaluated_sets(
    recipe: Recipe, prompts: PromptSource, make: Callable[[Sequence[str], int], TeacherSamples]
) -> Iterator[tuple[str, TeacherSamples, int]]:
    """The sets that a finished run's rows are drawn on, with their pictures; `make(prompts, seed)`
    makes one."""
    if not recipe.metrics:
        yield EVALUATED[2], make(prompts, GRID_SEED), GRID
        return
    count, seed = recipe.metrics[0].num_images, recipe.metrics[0].seed
    for what, samples in zip(
        EVALUATED, make_sets(build_part(recipe.metrics[0]), count, seed, make), strict=False
    ):
        yield what, samples, count

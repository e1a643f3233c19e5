"""Which caches of teacher samples a recipe fills before it trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distillkit.evaluation.evaluate import make_sets
from distillkit.recipe.schema import Recipe
from distillkit.samples.cache import SampleCache, evaluation_cache, training_cache
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import build_part, freeze


def caches_of(recipe: Recipe, device: Any) -> Iterator[tuple[str, SampleCache, TeacherSamples]]:
    """Each with its name and its samples: training's, and both sets of the evaluation."""
    teacher = build_part(recipe.teacher)
    freeze(teacher.modules())
    teacher.to(device)
    config = recipe.samples
    order = SampleOrder(build_part(recipe.prompts), config.seed, config.count, recipe.run.seed)
    training = TeacherSamples(teacher, order, device)
    if cache := training_cache(recipe, training):
        yield "training's samples", cache, training
    if not recipe.metrics:
        return
    count, seed = recipe.metrics[0].num_images, recipe.metrics[0].seed
    sets = make_sets(
        build_part(recipe.metrics[0]),
        count,
        seed,
        lambda prompts, seed: TeacherSamples(teacher, SampleOrder(prompts, seed), device),
    )
    for what, samples in zip(("evaluation's samples", "reference's samples"), sets, strict=True):
        if cache := evaluation_cache(recipe, samples, count):
            yield what, cache, samples

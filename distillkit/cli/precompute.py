"""`distillkit precompute RECIPE`: the teacher's samples on disk, before anything trains."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from distillkit.cli._options import Changes, RecipeName

if TYPE_CHECKING:
    from distillkit.recipe.schema import Recipe
    from distillkit.samples.cache import SampleCache
    from distillkit.samples.pairs import Pairs


def precompute(
    recipe: RecipeName,
    set_: Changes = None,
) -> None:
    """Fill the recipe's cache: what training reads, and what its figures are measured against.

    It goes on where it was stopped. With torchrun, several processes share the work.
    """
    from distillkit.errors import UserError
    from distillkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())
    if loaded.recipe.samples.cache is None:
        raise UserError(
            f"{loaded.path}: samples.cache names no folder to fill; add it, or --set "
            "samples.cache=DIR --set samples.count=N"
        )

    from distillkit.cli._console import console
    from distillkit.cli._progress import Terminal
    from distillkit.training.build import make_accelerator
    from distillkit.training.trainer import fill_together

    accelerator = make_accelerator(loaded.recipe, loaded.path.parent)
    terminal = Terminal(console(), quiet=not accelerator.is_main_process)
    with terminal.bar:
        for what, cache, pairs in caches(loaded.recipe, accelerator.device):
            terminal.say(f"{what}: {cache.gigabytes(pairs):.3f} GB in {cache.folder}")
            fill_together(cache, pairs, accelerator, partial(terminal.count, what))


def caches(recipe: Recipe, device: Any) -> Iterator[tuple[str, SampleCache, Pairs]]:
    """What there is to fill: training's samples, and both sets of the figures."""
    from distillkit.evaluation.evaluate import sets_of
    from distillkit.samples.cache import figures_cache, training_cache
    from distillkit.samples.order import Stream
    from distillkit.samples.pairs import Pairs
    from distillkit.training.build import build_part, freeze

    teacher = build_part(recipe.teacher)
    freeze(teacher.modules())
    teacher.to(device)
    samples, metrics = recipe.samples, recipe.metrics
    stream = Stream(build_part(recipe.prompts), samples.seed, samples.count, recipe.run.seed)
    training = Pairs(teacher, stream, device)
    if cache := training_cache(recipe, training):
        yield "training's samples", cache, training
    if metrics is None:
        return
    sets = sets_of(
        build_part(metrics),
        metrics.pictures,
        metrics.seed,
        lambda prompts, seed: Pairs(teacher, Stream(prompts, seed), device),
    )
    for what, pairs in zip(("figures' samples", "reference's samples"), sets, strict=True):
        if cache := figures_cache(recipe, pairs, metrics.pictures):
            yield what, cache, pairs

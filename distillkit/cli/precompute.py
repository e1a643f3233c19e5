"""`distillkit precompute RECIPE`: the teacher's samples on disk, before anything trains."""

from __future__ import annotations

from functools import partial

from distillkit.cli.terminal.options import Changes, RecipeName


def precompute(
    recipe: RecipeName,
    set_: Changes = None,
) -> None:
    """Fill the recipe's caches: what training reads, and what its metrics compare with.

    It continues where it was stopped. With torchrun, several processes share the work.
    """
    from distillkit.errors import UserError
    from distillkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())
    samples = loaded.recipe.samples
    if samples.cache is None and (samples.real_cache is None or samples.real != "pictures"):
        raise UserError(
            f"{loaded.path}: samples.cache names no folder to fill; add it, or --set "
            "samples.cache=DIR --set samples.count=N"
        )

    from distillkit.recipe.preflight import preflight

    # A package's author fills its folder with this command, so that it may be empty.
    others = ("samples", "student", "backbone", "pool", "critics", "losses")
    notes = preflight(loaded, leave_out=others)

    from distillkit.atomic import remove_unfinished
    from distillkit.cli.terminal.progress import ProgressCallback
    from distillkit.evaluation.precompute import caches_of
    from distillkit.training.processes import make_accelerator, set_threads
    from distillkit.training.trainer import fill_together

    accelerator = make_accelerator(loaded.recipe, loaded.path.parent)
    terminal = ProgressCallback.for_process()
    for note in notes:
        terminal.on_message(f"Note    {note}")
    threads = set_threads(loaded.recipe.run.threads, accelerator)
    terminal.on_message(f"Device  {accelerator.device}{threads}")
    with terminal.bar:
        for what, cache, source in caches_of(loaded.recipe, accelerator.device):
            if accelerator.is_main_process and (freed := remove_unfinished(cache.folder)):
                terminal.on_message(f"Removed {freed / 1e6:,.1f} MB of unfinished files")
            terminal.on_message(f"{what}: {cache.gigabytes(source):.3f} GB in {cache.folder}")
            fill_together(cache, source, accelerator, partial(terminal.on_progress, what))
    accelerator.end_training()  # a process that ends without it may abort

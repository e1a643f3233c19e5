"""distillkit from Python: what the command line does, as functions.

import distillkit

recipe = distillkit.load_recipe("my_recipe.yaml", ["run.seed=1"])
run = distillkit.train(recipe, "runs/mine")
images_B3HW = distillkit.sample(run.path, "a red fox", steps=2, seed=7)
"""

from __future__ import annotations

import os
import shlex
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from distillkit.atomic import appearing, remove_unfinished
from distillkit.errors import UserError, notices
from distillkit.evaluation.evaluate import evaluate
from distillkit.evaluation.grids import make_held_out, make_previews, save_image
from distillkit.evaluation.precompute import check_caches, evaluation_caches
from distillkit.evaluation.sampling import sample
from distillkit.recipe.compare import changes, fitting_batches, pictures_of
from distillkit.recipe.load import LoadedRecipe, RecipeError, load_recipe
from distillkit.recipe.preflight import preflight
from distillkit.recipe.schema import Recipe
from distillkit.report.report import write_report
from distillkit.runs.folder import RunFolder, launched_processes
from distillkit.training.build import Parts, build_parts
from distillkit.training.callbacks import Callback, Stopped
from distillkit.training.models.compiled import running_eagerly
from distillkit.training.processes import make_accelerator, set_threads, wait_for_the_last
from distillkit.training.train_state import TrainState
from distillkit.training.trainer import Trainer, fill_together

__all__ = ["Callback", "Stopped", "load_recipe", "prepare", "sample", "train"]


def train(
    recipe: Recipe | LoadedRecipe,
    out: str | Path,
    resume: bool = False,
    callback: Callback | None = None,
) -> RunFolder:
    """Distil: train the student, publish it, evaluate it, write the report; returns the run.

    `out` is a new folder, or with `resume` one that holds this recipe's run. Raises `UserError`
    for what the user can mend (`Diverged` for NaN and critics that have won; the last good
    checkpoint is kept), and `Stopped` after SIGTERM or Ctrl-C, once the state is saved.
    """
    folder, callback = RunFolder(Path(out)), callback or Callback()
    for note in preflight(recipe):
        callback.on_message(f"Note    {note}")
    check_folder(recipe, folder.path, resume)
    main_process = os.environ.get("RANK", "0") == "0"  # known before a launch has connected
    with folder.locked() if main_process else nullcontext():
        check_folder(recipe, folder.path, resume)  # another run may just have begun there
        trainer = prepare(recipe, folder.path, callback)
        check_caches(trainer.recipe, trainer.parts, trainer.accelerator.device)
        _clear_cache(trainer)
        trainer.train(resume)
        with running_eagerly(trainer.recipe.run):
            _finish(trainer)
        trainer.accelerator.end_training()
    return folder


def prepare(
    recipe: Recipe | LoadedRecipe,
    out: str | Path,
    callback: Callback | None = None,
    accelerator: Any = None,
) -> Trainer:
    """A trainer with every part built and on its device. Nothing is written before it trains.

    For benchmarks and tests that run single iterations (`Trainer.step`); `accelerator` replaces the
    one that accelerate would make for the recipe. Raises `UserError`.
    """
    plain = recipe.recipe if isinstance(recipe, LoadedRecipe) else recipe
    folder, callback = RunFolder(Path(out)), callback or Callback()
    if accelerator is None:
        accelerator = make_accelerator(plain, folder.path)
        threads = set_threads(plain.run.threads or folder.about().get("threads"), accelerator)
        callback.on_message(f"Device  {accelerator.device}{threads}")
    with notices(lambda text: callback.on_message(f"Note    {text}")):
        parts = build_parts(plain)
    previews = make_previews(plain, parts, accelerator.device)

    def preview(state: TrainState, iteration: int) -> None:
        with state.ema_weights():
            image = previews.image(state.student)
        if accelerator.is_main_process:
            save_image(image, folder.previews / f"{iteration:08d}.png")

    held_out = make_held_out(plain, parts, accelerator.device)
    return Trainer(plain, folder, parts, accelerator, callback, preview, held_out)


def check_folder(recipe: Recipe | LoadedRecipe, out: Path, resume: bool) -> RunFolder:
    """The run's folder: one that holds no run, or with `resume` one that holds this recipe's.

    Raises `UserError` otherwise.
    """
    folder = RunFolder(out)
    if not resume:
        if folder.recipe.exists():
            raise UserError(
                f"{out} holds a run already: continue it with --resume, or name another --out"
            )
        return folder
    if not folder.recipe.exists():
        raise UserError(f"{out} holds no run to resume; leave --resume out to start one there.")
    plain = recipe.recipe if isinstance(recipe, LoadedRecipe) else recipe
    pictures, processes = folder.pictures, launched_processes()
    if pictures is not None and pictures % processes:
        *fewer, most = (str(n) for n in range(1, pictures + 1) if pictures % n == 0)
        counts = " or ".join(filter(None, (", ".join(fewer), most)))
        raise UserError(
            f"{out} can't be resumed by {processes} processes, which do not share an iteration's "
            f"{pictures} pictures in {processes} equal parts; start {counts}"
        )
    if differences := changes(folder.recipe, plain, pictures, processes):
        name = recipe.path if isinstance(recipe, LoadedRecipe) else "this recipe"
        raise UserError(
            f"{out} was started with other numbers than {name} gives: {'; '.join(differences)}. To "
            f"resume it as it began: {resume_command(folder)}"
        )
    return folder


def resume_command(folder: RunFolder) -> str:
    """The command line that resumes a run as it began, whatever was set when it was started; with
    batches that fit the processes of this launch."""
    world, pictures = launched_processes(), folder.pictures
    launcher = f"torchrun --nproc_per_node {world} -m " if world > 1 else ""
    recipe, out = shlex.quote(str(folder.recipe)), shlex.quote(str(folder.path))
    command = f"{launcher}distillkit run {recipe} --out {out} --resume"
    if pictures is None:
        return command
    with suppress(RecipeError):  # parts that have left, which the command will tell
        begun = load_recipe(folder.recipe).recipe
        if pictures_of(begun, world) != pictures:
            fitting = fitting_batches(begun, pictures, world) or {}
            command += "".join(f" --set {field}={value}" for field, value in fitting.items())
    return command


def _clear_cache(trainer: Trainer) -> None:
    """Remove what killed processes left half-written in the recipe's caches."""
    samples = trainer.recipe.samples
    caches = [c for c in (samples.cache, samples.real_cache) if c and not c.startswith("package:")]
    if trainer.accelerator.is_main_process:
        freed = sum(remove_unfinished(Path(cache)) for cache in caches)
        if freed:
            said = f"Removed {freed / 1e6:,.1f} MB of unfinished files in the samples' cache"
            trainer.callback.on_message(said)


def _finish(trainer: Trainer) -> None:
    """Publish the student, evaluate it, write the report: the main process, with which the others
    share the evaluation."""
    folder, parts, progress = trainer.folder, trainer.parts, trainer.callback.on_progress
    if folder.recipe.exists():  # a process on another machine may not see it
        student = trainer.finished_student()
        parts = replace(parts, network=student.network)
    if trainer.accelerator.is_main_process:
        with appearing(folder.student) as temporary:
            student.network.publish(temporary, student.timestep_shift)
    if trainer.accelerator.num_processes > 1 and trainer.recipe.metrics:
        _share_evaluation(trainer, parts)
    if trainer.accelerator.is_main_process:
        evaluate(trainer.recipe, parts, folder, progress)
        write_report(folder)


def _share_evaluation(trainer: Trainer, parts: Parts) -> None:
    """Each process draws and measures every so many-th row; a process that doesn't see the run's
    folder leaves its rows to the main one."""
    recipe, processes = trainer.recipe, trainer.accelerator
    progress = trainer.callback.on_progress
    for what, cache, samples in evaluation_caches(recipe, parts, processes.device):
        fill_together(cache, samples, processes, partial(progress, what))
    if trainer.folder.recipe.exists():
        own = slice(processes.process_index, None, processes.num_processes)
        evaluate(recipe, parts, trainer.folder, progress, share=own)
    wait_for_the_last()

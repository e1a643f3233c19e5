"""`distillkit run RECIPE`: train, judge, publish, report."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillkit.cli._options import Changes, RecipeName

if TYPE_CHECKING:
    from distillkit.cli._progress import Terminal
    from distillkit.recipe.load import LoadedRecipe
    from distillkit.runs.folder import RunFolder
    from distillkit.training.train_state import Players
    from distillkit.training.trainer import Trainer


def run(
    recipe: RecipeName,
    set_: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-TIME")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, or the newest one.")
    ] = False,
) -> None:
    """Distil: train the student, judge it, publish it, and write the report."""
    from distillkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())
    folder = choose_folder(loaded, out, resume)

    from distillkit.training.trainer import Stopped

    trainer, terminal = open_trainer(loaded, folder, resume)
    try:
        with terminal.bar:
            trainer.train(resume)
            trainer.accelerator.end_training()
            if trainer.accelerator.is_main_process:
                finish(trainer, terminal)
    except Stopped as stopped:
        terminal.say(f"\nStopped; saved after iteration {stopped.iteration}. Go on with")
        terminal.say(f"  distillkit run {recipe} --out {folder.path} --resume")
        raise typer.Exit(130) from None
    if trainer.accelerator.is_main_process:
        summary(folder, terminal)


def choose_folder(loaded: LoadedRecipe, out: Path | None, resume: bool) -> RunFolder:
    """The run's folder: a new one, or with `resume` one that holds this recipe's run."""
    from distillkit.errors import UserError
    from distillkit.recipe.load import dump_recipe
    from distillkit.runs.folder import RunFolder

    name = loaded.path.stem
    if out is None:
        out = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if resume:
            runs = sorted(p for p in Path("runs").glob(f"{name}-*") if (p / "recipe.yaml").exists())
            if not runs:
                raise UserError(f"There is no run of {name} under runs/ to go on with.")
            out = runs[-1]
    folder = RunFolder(out)
    if not resume:
        if folder.recipe.exists():
            raise UserError(
                f"{out} holds a run already: go on with --resume, or name another --out"
            )
        return folder
    if not folder.recipe.exists():
        raise UserError(f"{out} holds no run to go on with; leave --resume out to start one there.")
    if folder.recipe.read_text(encoding="utf-8") != dump_recipe(loaded.recipe):
        raise UserError(
            f"{out} was started with other numbers than {loaded.path} gives. To go on exactly as "
            f"it began: distillkit run {folder.recipe} --out {out} --resume"
        )
    return folder


def open_trainer(loaded: LoadedRecipe, folder: RunFolder, resume: bool) -> tuple[Trainer, Terminal]:
    """Build the parts first, so that bad input leaves no folder behind."""
    from distillkit.cli._console import console
    from distillkit.cli._progress import Terminal
    from distillkit.evaluation.grids import make_previews, save_image
    from distillkit.recipe.load import dump_recipe
    from distillkit.registry.entry_points import installed
    from distillkit.training.build import build_parts, make_accelerator
    from distillkit.training.trainer import Trainer

    accelerator = make_accelerator(loaded.recipe, folder.path)
    terminal = Terminal(console(), quiet=not accelerator.is_main_process)
    terminal.say(f"Recipe  {loaded.path}\nRun     {folder.path}\nDevice  {accelerator.device}")
    parts = build_parts(loaded.recipe)
    if accelerator.is_main_process and not resume:
        plugins = {str(o.plugin): f"{o.distribution} {o.version}" for o in installed().plugins}
        folder.open_new(dump_recipe(loaded.recipe), plugins)
    accelerator.init_trackers("distillkit")
    previews = make_previews(loaded.recipe, parts, accelerator.device)

    def preview(players: Players, iteration: int) -> None:
        with players.published():
            image = previews.image(players.student)
        if accelerator.is_main_process:
            save_image(image, folder.previews / f"{iteration:08d}.png")

    return Trainer(loaded.recipe, folder, parts, accelerator, terminal, preview), terminal


def finish(trainer: Trainer, terminal: Terminal) -> None:
    """Publish the student, take the figures, write the report."""
    from distillkit.atomic import appearing
    from distillkit.evaluation.evaluate import evaluate
    from distillkit.report.report import write_report

    student = trainer.alone()
    with appearing(trainer.folder.student) as temporary:
        student.network.publish(temporary, student.timestep_shift)
    parts = replace(trainer.parts, network=student.network)
    evaluate(trainer.recipe, parts, trainer.folder, terminal.count)
    write_report(trainer.folder)


def summary(folder: RunFolder, terminal: Terminal) -> None:
    """The end of the terminal's output: figures, and where to look."""
    import json

    from distillkit.evaluation.evaluate import figures_table

    if folder.figures.exists():
        terminal.console.print(figures_table(json.loads(folder.figures.read_text())))
    terminal.say(f"\nStudent  {folder.student}\nReport   {folder.report}")

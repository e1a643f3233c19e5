"""`distillkit run RECIPE`: train, publish, evaluate, report."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillkit.cli.terminal.options import Changes, RecipeName

if TYPE_CHECKING:
    from distillkit.cli.terminal.progress import ProgressCallback
    from distillkit.recipe.load import LoadedRecipe
    from distillkit.runs.folder import RunFolder


NOT_BEGUN = "Stopped before the run began: start it again."


def run(
    recipe: RecipeName,
    set_: Changes = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/RECIPE-TIME")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue the run in --out, or this recipe's newest one."),
    ] = False,
) -> None:
    """Distil: train the student, publish it, evaluate it, and write the report."""
    from distillkit.recipe.load import load_recipe
    from distillkit.recipe.preflight import brought_by

    loaded = load_recipe(recipe, set_ or ())
    folder = out or (newest_run(loaded) if resume else new_run(loaded))

    from distillkit import api
    from distillkit.cli.terminal.progress import ProgressCallback

    run_folder = api.check_folder(loaded, folder, resume)
    terminal = ProgressCallback.for_process()
    terminal.on_message(f"Recipe  {loaded.path}\nRun     {folder}")
    for package, parts in brought_by(loaded.recipe).items():
        terminal.on_message(f"Parts   {package}: {', '.join(parts)}")
    try:
        with terminal.bar, interrupted_by_sigterm(not terminal.quiet):
            finished = api.train(loaded, folder, resume, terminal)
    except api.Stopped as stopped:
        terminal.on_message(f"\nStopped; saved after iteration {stopped.iteration}. Continue with")
        terminal.on_message(f"  {api.resume_command(run_folder)}")
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        begun = run_folder.recipe.is_file()
        said = "Stopped; what was saved stays. Continue with" if begun else NOT_BEGUN
        terminal.on_message(f"\n{said}")
        if begun:
            terminal.on_message(f"  {api.resume_command(run_folder)}")
        raise typer.Exit(130) from None
    summary(finished, terminal)


@contextmanager
def interrupted_by_sigterm(wanted: bool) -> Iterator[None]:
    """Inside, SIGTERM interrupts as Ctrl-C does, where it would end the process without a word.

    The training loop has its own answer to both, which saves first. Processes beside the main one
    wait for others in calls that Python can't interrupt, and want none.
    """
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def new_run(loaded: LoadedRecipe) -> Path:
    """A folder under `runs/` that is named after the recipe and the time."""
    return Path("runs") / f"{loaded.path.stem}-{time.strftime('%Y%m%d-%H%M%S')}"


def newest_run(loaded: LoadedRecipe) -> Path:
    """The run under `runs/` of exactly this recipe that was begun last, whatever its folder is
    called. Raises `UserError`, which says how the run that is nearest to it differs."""
    from distillkit.errors import UserError
    from distillkit.recipe.compare import changes
    from distillkit.runs.folder import RunFolder, launched_processes

    def differing(file: Path) -> list[str]:
        pictures = RunFolder(file.parent).pictures
        return changes(file, loaded.recipe, pictures, launched_processes())

    begun = sorted(Path("runs").glob("*/recipe.yaml"), key=lambda file: file.stat().st_mtime_ns)
    differences = {file: differing(file) for file in reversed(begun)}
    for file, different in differences.items():
        if not different:
            return file.parent
    said = f"There is no run of {loaded.path} under runs/ to resume"
    if differences:
        nearest = min(differences, key=lambda file: len(differences[file]))
        said += f"; the nearest is {nearest.parent}, with {'; '.join(differences[nearest])}"
    raise UserError(f"{said}.")


def summary(folder: RunFolder, terminal: ProgressCallback) -> None:
    """The end of the terminal's output: the metrics, and where to look."""
    import json

    from distillkit.evaluation.table import metrics_table
    from distillkit.report.verdict import outcome

    if terminal.quiet:
        return
    if folder.metrics.exists():
        metrics = json.loads(folder.metrics.read_text())
        terminal.console.print(metrics_table(metrics))
        if said := outcome(metrics):
            terminal.on_message(said)
    terminal.on_message(f"\nStudent  {folder.student}\nReport   {folder.report}")

"""`distillkit card RUN`: a model card, from the recipe, the metrics and the owners' licences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillkit.cli.terminal.options import BaseModels, LicenceId
from distillkit.errors import UserError

if TYPE_CHECKING:
    from distillkit.report.card import Card


def card(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    of: Annotated[
        Path | None,
        typer.Option(help="What `export` wrote, if that is shared.", show_default="RUN/student"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="RUN/card")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="The card's heading.", show_default="the run's name")
    ] = None,
    license_: LicenceId = None,
    base_model: BaseModels = None,
) -> None:
    """Write a model card: how to sample, licences, metrics with their commands, a grid.

    The licence is the one that the teacher's owner states, in a model card, a licence file or a
    package; where none is found, --license names it. Nothing is guessed.
    """
    from distillkit.cli.terminal.console import console

    exported = of or run / "student"
    if not exported.exists():
        raise UserError(
            f"{exported} is not there: a run publishes its student when it is finished; of one "
            "that is not, `distillkit export RUN --to ...` writes one, to be named by --of"
        )
    made = make_card(run, exported, title, license_, base_model or (), ask_hub=True)
    folder = out or run / "card"
    notes = made.write(folder)
    console().print("\n".join([str(folder / "README.md"), *(f"  {note}" for note in notes)]))


def make_card(
    run: Path,
    exported: Path,
    title: str | None,
    licence: str | None,
    base_models: Sequence[str],
    *,
    ask_hub: bool,
    snapshot: str | None = None,
    about: Sequence[str] = (),
) -> Card:
    """The card of what was exported. `ask_hub`: whether a teacher's own card may be fetched."""
    from distillkit.exchange import hub_answers, packaged_path
    from distillkit.recipe.load import load_models
    from distillkit.report.card import Card, Source
    from distillkit.report.licence import licence_of, repository
    from distillkit.report.upload import page_of
    from distillkit.runs.folder import RunFolder

    folder = RunFolder(run)
    if not folder.recipe.is_file():
        raise UserError(f"{run} is not a run folder: it has no recipe.yaml")
    recipe = load_models(folder.recipe)
    names = dict.fromkeys([*recipe.teacher.derived_from(), *recipe.student.derived_from()])
    # Asked once: the hub's client tries again and again.
    ask_hub = ask_hub and any(map(repository, names)) and hub_answers()
    sources = [
        Source(name, licence_of(name, packaged_path(name, "derived_from"), ask_hub))
        for name in names
    ]
    return Card(
        run=folder,
        title=title or folder.path.resolve().name,
        page=page_of(exported),
        sources=sources,
        licence=licence,
        base_models=base_models,
        snapshot=snapshot,
        about=about,
    )

"""`distillkit export RUN --to NAME`: a run's student for other software."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from distillkit.cli.results.card import make_card
from distillkit.cli.terminal.options import BaseModels, LicenceId

if TYPE_CHECKING:
    from distillkit.configs import ExporterConfig
    from distillkit.report.card import Card


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[str, typer.Option(help="An installed exporter; see `distillkit plugins list`.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Set a field of the exporter (`distillkit plugins show NAME --socket exporter`); "
            "can be given many times.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File or folder to write.", show_default="RUN/exports/...")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="The student of an earlier moment, such as start.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload it to the Hugging Face hub, with a card."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --push: list what would go up, without network.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="With --push: a new repository is private.")
    ] = False,
    license_: LicenceId = None,
    base_model: BaseModels = None,
) -> None:
    """Write a run's student in a form that other software loads; with --push, share it."""
    config = configure_exporter(to, set_ or ())
    _check_push(push, dry_run, private)

    out, notes = _write(config, run, out, snapshot)
    if push is not None:
        card = make_card(
            run,
            out,
            push.partition("/")[2],
            license_,
            base_model or (),
            ask_hub=not dry_run,
            snapshot=snapshot,
            about=notes,
        )
        _share(push, out, card, run / "card", dry_run, private)


def _write(
    config: ExporterConfig, run: Path, out: Path | None, snapshot: str | None
) -> tuple[Path, list[str]]:
    """Export the run's student, and print and return where to and what the exporter notes.

    Raises `UserError` for a path of another kind, before anything is loaded.
    """
    from distillkit.atomic import remove_unfinished
    from distillkit.cli.terminal.console import console
    from distillkit.errors import UserError
    from distillkit.evaluation.sampling import load_student
    from distillkit.training.build import build_part, part_label
    from distillkit.training.guard import Guard

    exporter, guard = build_part(config), Guard(part_label(config))
    if out is None:
        name = f"{snapshot or 'student'}-{config.name()}"
        out = run / "exports" / f"{name}{exporter.suffix}"
    if exporter.suffix and out.is_dir():
        example = out / f"student{exporter.suffix}"
        raise UserError(f"--out {out} is a folder; name a file in it, such as {example}")
    if exporter.suffix and out.suffix != exporter.suffix:
        raise UserError(f"--out {out}: the file's name must end in {exporter.suffix}")
    _, _, student = load_student(run, snapshot, console().print)
    if freed := remove_unfinished(out.parent, out.name):
        console().print(f"Removed {freed / 1e6:,.1f} MB of an unfinished export")
    before = _stamps(out)
    with guard("export()"):
        notes = exporter.export(student.network, student.timestep_shift, out)
    guard.check("export()", lambda: _flaw(out, before, notes))
    console().print("\n".join([str(out), *(f"  {note}" for note in notes)]))
    return out, notes


def _check_push(push: str | None, dry_run: bool, private: bool) -> None:
    """Raise `UserError` for what would fail only after the student is exported."""
    from distillkit.errors import UserError

    if push is None:
        if dry_run or private:
            raise UserError(f"{'--dry-run' if dry_run else '--private'} is for --push OWNER/NAME")
        return
    from distillkit.report.upload import check_repository, check_token

    check_repository(push)
    if not dry_run:
        check_token(push)


def _share(
    name: str, exported: Path, card: Card, folder: Path, dry_run: bool, private: bool
) -> None:
    """Write the card, list every file, and upload them unless it is a dry run."""
    from rich.filesize import decimal

    from distillkit.cli.terminal.console import console
    from distillkit.errors import UserError
    from distillkit.report.upload import files_to_upload, upload

    shown = console()
    notes = card.write(folder)
    files = files_to_upload(exported, folder)
    sizes = {path: file.stat().st_size for path, file in files.items()}
    shown.print(f"\nFor {name}:")
    for path, size in sizes.items():
        shown.print(f"  {decimal(size):>9}  {path}", highlight=False)
    shown.print(f"  {decimal(sum(sizes.values())):>9}  in all, {len(files)} files")
    shown.print("\n".join(f"  {note}" for note in notes))
    if dry_run:
        shown.print("A dry run: nothing was uploaded.")
    elif card.chosen_licence() is None:
        raise UserError(
            f"--push {name}: what this student derives from states no licence that could be read "
            "here, or several; name the one you share it under: --license ID"
        )
    else:
        shown.print(upload(name, files, private))


def _stamps(path: Path) -> dict[Path, tuple[int, int]]:
    """The files at the path, or in the folder there, each with what changes when it is written."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    return {file: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def _flaw(path: Path, before: dict[Path, tuple[int, int]], notes: object) -> str | None:
    """What is wrong with what an exporter wrote and said, if anything."""
    if _stamps(path) == before:
        return f"wrote nothing to {path}"
    if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
        return f"wrote {path} and returned {notes!r}, not a list of lines"
    return None


def configure_exporter(name: str, settings: Sequence[str]) -> ExporterConfig:
    """The installed exporter `name` with its fields set by `field=value`. Raises `UserError`."""
    from distillkit.cli.terminal.settings import configure

    return cast("ExporterConfig", configure("exporter", name, settings, f"--to {name}"))

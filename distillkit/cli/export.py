"""`distillkit export RUN --to NAME`: a run's student for other software."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from distillkit.configs import ExporterConfig


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
) -> None:
    """Write a run's student in a form that other software loads."""
    config = configure_exporter(to, set_ or ())

    from distillkit.cli.terminal.console import console
    from distillkit.errors import UserError
    from distillkit.evaluation.sampling import load_student
    from distillkit.training.build import build_part, part_label
    from distillkit.training.guard import Guard

    exporter, guard = build_part(config), Guard(part_label(config))
    if out is None:
        out = run / "exports" / f"{snapshot or 'student'}-{to}{exporter.suffix}"
    if exporter.suffix and out.is_dir():
        example = out / f"student{exporter.suffix}"
        raise UserError(f"--out {out} is a folder; name a file in it, such as {example}")
    if exporter.suffix and out.suffix != exporter.suffix:
        raise UserError(f"--out {out}: the file's name must end in {exporter.suffix}")
    _, _, student = load_student(run, snapshot, console().print)
    before = _stamps(out)
    with guard("export()"):
        notes = exporter.export(student.network, student.timestep_shift, out)
    guard.check("export()", lambda: _flaw(out, before, notes))
    console().print("\n".join([str(out), *(f"  {note}" for note in notes)]))


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

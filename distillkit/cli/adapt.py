"""`distillkit adapt`: what a student learnt, put onto another checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distillkit.errors import UserError

if TYPE_CHECKING:
    from distillkit.exchange import Layout


def adapt(
    student: Annotated[
        Path, typer.Option(help="The student's weights: a denoiser or a checkpoint file.")
    ],
    base: Annotated[Path, typer.Option(help="What the student was distilled from.")],
    onto: Annotated[Path, typer.Option(help="The checkpoint that is to become fast.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file; with --sweep, the PNG.")],
    strength: Annotated[float, typer.Option(help="Share of the difference that is added.")] = 1.0,
    shift: Annotated[
        int | None,
        typer.Option(help="The student's shift, where neither its file nor its run states it."),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="0.4,0.6,...", help="Draw these strengths, to choose.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="For --sweep; can be given many times.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="For --sweep: model that the weights are put into.")
    ] = None,
    steps: Annotated[int, typer.Option(help="For --sweep: 1, 2, 3 or 4 steps.")] = 1,
    seed: Annotated[int, typer.Option(help="For --sweep: seed of the noise.")] = 0,
    family: Annotated[
        str | None, typer.Option(help="For --sweep: the model's family, where files do not tell.")
    ] = None,
) -> None:
    """Add the difference of student and base to another checkpoint, file to file."""
    from distillkit.atomic import remove_unfinished
    from distillkit.cli.terminal.console import console
    from distillkit.registry.entry_points import installed
    from distillkit.registry.layouts import installed_layouts
    from distillkit.transfer.transfer import transfer

    _check_out(out, ".safetensors" if sweep is None else ".png", (student, base, onto))
    if freed := remove_unfinished(out.parent, out.name):
        console().print(f"Removed {freed / 1e6:,.1f} MB of an unfinished {out.name}")
    layouts = list(installed_layouts(installed().registry).values())
    if sweep is None:
        found = transfer(student, base, onto, out, strength, layouts, shift)
        said = "nothing states the student's timestep shift; --shift puts one into the metadata"
        said = said if found is None else f"timestep shift {found}"
        console().print(f"{out}\n  strength {strength:g}, {said}")
        return
    from distillkit.transfer.sweep import read_strengths, sweep_strengths

    if model is None or not prompt:
        raise UserError("--sweep draws pictures: give --model MODEL and at least one --prompt")
    strengths = read_strengths(sweep)
    known = _known_shift(student, shift, layouts)

    def write(path: Path, value: float) -> None:
        transfer(student, base, onto, path, value, layouts, known)

    sweep_strengths(write, strengths, out, model, prompt, steps, seed, known, family)
    console().print(f"{out}\n  strengths {', '.join(f'{value:g}' for value in strengths)}")


def _check_out(out: Path, suffix: str, read: Iterable[Path]) -> None:
    """`UserError`, unless `out` can be written without harm to what is read."""
    if out.is_dir() or out.suffix != suffix:
        raise UserError(f"--out {out}: name a file that ends in {suffix}")
    if out.exists() and any(out.samefile(path) for path in read if path.exists()):
        raise UserError(f"--out {out}: it is one of the files that are read; name another one")


def _known_shift(student: Path, shift: int | None, layouts: list[Layout]) -> int:
    """The timestep shift to draw the student with, from 1 to 1000."""
    from distillkit.transfer.transfer import learnt_shift, opened

    with opened(student, "--student", layouts):
        found = learnt_shift(student, shift, layouts)
    if found is None:
        raise UserError(
            f"--student {student}: neither the file nor a folder around it states its timestep "
            "shift, without which it can't be drawn with; give the one that it was published with, "
            "or --shift 1000 for none"
        )
    return found

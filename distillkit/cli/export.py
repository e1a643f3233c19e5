"""`distillkit export RUN --to FORM`: a run's student for other software."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from distillkit.configs import ExporterConfig


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    to: Annotated[str, typer.Option(help="diffusers, unet, single-file or lora.")],
    out: Annotated[
        Path | None, typer.Option(help="File or folder to write.", show_default="RUN/exports/...")
    ] = None,
    snapshot: Annotated[
        str | None, typer.Option(help="The student of an earlier moment, such as start.")
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="Number format: fp16, bf16 or fp32.")] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of a LoRA.")] = None,
    base: Annotated[
        str | None, typer.Option(help="UNet or pipeline that a LoRA is made for.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Of a diffusers folder: stock, or shifted (remote code).")
    ] = None,
) -> None:
    """Write a run's student in a form that other software loads."""
    options = {"dtype": dtype, "rank": rank, "base": base, "scheduler": scheduler}
    config = choose(to, {name: value for name, value in options.items() if value is not None})

    from distillkit.cli._console import console
    from distillkit.errors import UserError
    from distillkit.evaluation.sampling import load_student

    exporter = config.build()
    if out is None:
        out = run / "exports" / f"{snapshot or 'student'}-{to}{exporter.suffix}"
    if exporter.suffix and out.is_dir():
        example = out / f"student{exporter.suffix}"
        raise UserError(f"--out {out} is a folder; name a file in it, such as {example}")
    if exporter.suffix and out.suffix != exporter.suffix:
        raise UserError(f"--out {out}: let the name end in {exporter.suffix}")
    _, _, student = load_student(run, snapshot)
    said = exporter.export(student.network, student.timestep_shift, out)
    console().print("\n".join([str(out), *(f"  {line}" for line in said)]))


def choose(name: str, options: dict[str, Any]) -> ExporterConfig:
    """The installed exporter of that name with these options; what is wrong is a `UserError`."""
    from pydantic import ValidationError

    from distillkit.errors import UserError
    from distillkit.registry.entry_points import installed
    from distillkit.registry.registry import UnknownPartError

    try:
        config = installed().registry.get("exporter", name).config
        return config.model_validate(options)  # type: ignore[return-value]
    except UnknownPartError as error:
        raise UserError(f"--to {name}: {error}") from None
    except ValidationError as error:
        lines = []
        for flaw in error.errors(include_url=False):
            flag = f"--{flaw['loc'][0]}"
            if flaw["type"] == "extra_forbidden":
                lines.append(f"{flag} is not for --to {name}")
            else:
                lines.append(f"{flag} {flaw['input']}: {flaw['msg']}")
        raise UserError("\n".join(lines)) from None

"""`distillkit sample RUN "prompt"`: pictures from a run's student, or from a shared one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distillkit.cli.terminal.options import Family, ModelName, Shift, Weights
from distillkit.errors import UserError


def sample(
    run: ModelName,
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option(help="The PNG to write.")],
    steps: Annotated[int, typer.Option(help="1, 2, 3 or 4 steps.")] = 1,
    seed: Annotated[
        int,
        typer.Option(help="Seed of the noise; diffusers draws other noise from the same number."),
    ] = 0,
    count: Annotated[int, typer.Option(help="Pictures; more than one make a grid.")] = 1,
    snapshot: Annotated[
        str | None, typer.Option(help="The student of an earlier moment, such as start.")
    ] = None,
    weights: Weights = None,
    shift: Shift = None,
    family: Family = None,
    noise: Annotated[
        Path | None,
        typer.Option(help="Save the noise as safetensors: `x_T` is diffusers' `latents`."),
    ] = None,
) -> None:
    """Draw a prompt in one to four steps, with a run's student or published weights."""
    from distillkit.cli.terminal.console import console

    _check_out(out, noise)

    from distillkit import api
    from distillkit.evaluation.grids import save_image, square

    images_B3HW = api.sample(
        run,
        prompt,
        steps=steps,
        seed=seed,
        count=count,
        snapshot=snapshot,
        weights=weights,
        shift=shift,
        family=family,
        save_noise=noise,
        tell=console().print,
    )
    save_image(square(images_B3HW, cell=1), out)
    noun = "picture" if count == 1 else "pictures"
    console().print(f"{out}: {count} {noun} in {steps} step{'s' if steps > 1 else ''}, seed {seed}")


def _check_out(out: Path, noise: Path | None) -> None:
    """`UserError`, unless both files can be written: before a model is read."""
    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the picture is a PNG; let the name end in .png")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; name a file in it, such as {out / 'a.png'}")
    if noise is not None and noise.suffix != ".safetensors":
        raise UserError(f"--noise {noise}: let the name end in .safetensors")
    if in_the_way := next((place for place in out.parents if place.is_file()), None):
        raise UserError(f"--out {out}: {in_the_way} is a file, not a folder")

"""A grid of pictures to choose a transfer's strength from."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from distillkit.errors import UserError
from distillkit.evaluation.grids import MOST, save_image, sheet
from distillkit.evaluation.sampling import decode, generate, open_model
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.models.student import MAX_STEPS
from distillkit.transfer.transfer import check_strength


def read_strengths(text: str) -> list[float]:
    """`0.4,0.6` as numbers. Raises `UserError`."""
    try:
        strengths = [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--sweep {text}: numbers with commas between, as 0.4,0.6,0.8") from None
    for strength in strengths:
        check_strength(strength, "--sweep")
    return strengths


def sweep_strengths(
    write: Callable[[Path, float], None],
    strengths: Sequence[float],
    out: Path,
    model: str,
    prompts: Sequence[str],
    steps: int,
    seed: int,
    shift: int,
    family: str | None = None,
) -> None:
    """A row a strength, a column a prompt, the same noise in every row.

    `write(file, strength)` makes the weights; they lie beside `out` while they are drawn with, one
    file at a time. Raises `UserError`, in which such a file is "the weights".
    """
    if not 1 <= steps <= MAX_STEPS:
        raise UserError(f"--steps {steps}: a student draws in 1 to {MAX_STEPS} steps")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    with tempfile.TemporaryDirectory(prefix="distillkit-sweep-", dir=_folder(out)) as folder:
        for strength in strengths:
            file = Path(folder) / "weights.safetensors"
            write(file, strength)
            try:
                teacher, student = open_model(model, str(file), shift, family)
            except UserError as error:
                said = str(error).replace(str(file), "the weights")
                raise UserError(
                    f"--model {model}, with the weights of --onto for its own, can't be drawn "
                    f"with: {said}"
                ) from None
            teacher.to(device)
            samples = [
                TeacherSamples(teacher, SampleOrder([prompt], seed), device) for prompt in prompts
            ]
            pictures = [decode(teacher, generate(student, pair, [0], steps)) for pair in samples]
            rows.append(torch.cat(pictures))
    save_image(sheet(rows, [f"{value:g}" for value in strengths], prompts, most=MOST), out)


def _folder(out: Path) -> Path:
    """The folder of `out`, made if it is missing; temporary weights go to the same disk."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: its folder can't be made: {error.strerror}") from None
    return out.parent

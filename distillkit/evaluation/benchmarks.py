"""Prompts of files and of published benchmarks, and the folders that the benchmarks' judges read.

GenEval (Ghosh et al. 2023): 00012/metadata.jsonl and 00012/samples/0000.png, a folder a prompt.
DPG-Bench (Hu et al. 2024): NAME.png for the prompt in NAME.txt, its four pictures in a square.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distillkit.atomic import appearing, write_text
from distillkit.errors import UserError
from distillkit.evaluation.grids import save_image
from distillkit.evaluation.pictures import PictureFolder
from distillkit.registry.entry_points import installed
from distillkit.samples.order import SampleOrder
from distillkit.training.build import build_part

KINDS = {".txt": "text", ".jsonl": "jsonl", ".parquet": "parquet"}
"""Prompt sources by the end of a file's name."""
HOLDS = {"jsonl": "field", "parquet": "column"}
"""What such a prompt source calls the field that holds the prompt."""
PER_PROMPT = 4
"""Pictures of a prompt that both benchmarks judge."""
BENCHMARKS = ("geneval", "dpg")


@dataclass(frozen=True)
class PromptFile:
    """Prompts, each with its name or its own line in the file that a benchmark's judge wants."""

    prompts: Sequence[str]
    names: Sequence[str] = ()


def read_prompts(path: Path, benchmark: str | None = None, field: str | None = None) -> PromptFile:
    """The prompts of a file, or of a benchmark's file or folder. `field` of a file's rows holds
    them, where it is not called `prompt`. Raises `UserError`."""
    if benchmark is not None and benchmark not in BENCHMARKS:
        raise UserError(f"--benchmark {benchmark}: known are {' and '.join(BENCHMARKS)}")
    if benchmark == "dpg":
        files = sorted(path.glob("*.txt"))
        if not files:
            raise UserError(
                f"--prompts {path}: DPG-Bench's prompts are a folder of .txt files, one a prompt"
            )
        texts = [file.read_text(encoding="utf-8").strip() for file in files]
        return PromptFile(texts, [file.stem for file in files])
    kind = KINDS.get(path.suffix.lower())
    if kind is None or (benchmark == "geneval" and kind != "jsonl"):
        known = ".jsonl" if benchmark else ", ".join(KINDS)
        raise UserError(f"--prompts {path}: the name of a file of prompts ends in {known}")
    config = installed().registry.get("prompts", kind).config
    if field is not None and kind not in HOLDS:
        raise UserError(f"--field {field}: {path} has no fields, but one prompt a line")
    given = {"path": str(path)} | ({HOLDS[kind]: field} if field is not None else {})
    prompts = list(build_part(config.model_validate(given)))
    if not prompts:
        raise UserError(f"--prompts {path}: no prompt in it")
    if benchmark is None:
        return PromptFile(prompts)
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    return PromptFile(prompts, [line for line in lines if line])


def write_benchmark(
    benchmark: str, folder: Path, pictures: PictureFolder, order: SampleOrder, names: Sequence[str]
) -> None:
    """A row's pictures in the benchmark's layout. Those of a prompt are ordered by their number."""
    by_prompt: dict[int, list[int]] = {}
    for number in pictures.numbers:
        by_prompt.setdefault(order.prompt_index(number), []).append(number)
    for index, numbers in sorted(by_prompt.items()):
        files = [pictures.path(number) for number in sorted(numbers)]
        if benchmark == "geneval":
            place = folder / f"{index:05d}"
            write_text(place / "metadata.jsonl", names[index] + "\n")
            for n, file in enumerate(files):
                _link(file, place / "samples" / f"{n:04d}.png")
        else:
            _square(files, folder / f"{names[index]}.png")


def _link(file: Path, place: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    with appearing(place) as temporary:
        with suppress(OSError):
            os.link(file, temporary)
        if not temporary.exists():
            shutil.copyfile(file, temporary)


def _square(files: Sequence[Path], place: Path) -> None:
    """Up to four pictures edge to edge: upper left, upper right, lower left, lower right."""
    from PIL import Image

    images = [Image.open(file) for file in files]
    width, height = images[0].size
    whole = Image.new("RGB", (2 * width, 2 * height))
    for n, image in enumerate(images):
        whole.paste(image, (n % 2 * width, n // 2 * height))
    save_image(whole, place)

"""Pictures beside each other as one PNG, with rows and columns named.

Legend: B batch, R rows, N columns, H, W pixels. Pictures are RGB in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from distillkit.atomic import appearing
from distillkit.evaluation.sampling import decode, generate
from distillkit.recipe.schema import Recipe
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.build import Parts, build_part
from distillkit.training.models.held_out import SEED as HELD_OUT_SEED
from distillkit.training.models.held_out import HeldOutPairs
from distillkit.training.models.student import Student

if TYPE_CHECKING:
    from PIL.Image import Image

CELL = 96
"""Least side of a picture in a grid, in pixels; small pictures are magnified pixel by pixel."""
MOST = 256
"""Largest side of a picture in a grid with labels, in pixels; large pictures are reduced."""
GAP = 4
INK, PAPER = (34, 34, 34), (255, 255, 255)
TEXT = 13
LINES = 5
"""A caption's lines at most."""
PREVIEW_SEED = 2_000_003
"""Seed of the previews' prompts and noise."""


def to_image(picture_3HW: Tensor) -> Image:
    """A picture as PIL knows it: 8 bits a channel, rounded to the nearest."""
    from PIL import Image

    pixels_HW3 = (picture_3HW.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu()
    return Image.fromarray(pixels_HW3.contiguous().numpy())


def save_image(image: Image, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    with appearing(path) as temporary:
        image.save(temporary, format="PNG")


def sheet(
    rows: Sequence[Tensor],
    labels: Sequence[str] = (),
    captions: Sequence[str] = (),
    cell: int = CELL,
    most: int | None = None,
) -> Image:
    """A grid: each row is a (N, 3, H, W) tensor, `labels` name rows, `captions` head columns.

    Pictures smaller than `cell` are magnified by a whole factor, so that pixels stay pixels;
    those larger than `most` are reduced.
    """
    from PIL import Image, ImageDraw

    height, width = _size(rows[0].shape[-2], rows[0].shape[-1], cell, most)
    font = _font()
    heads = [_wrap(caption, width, font) for caption in captions]
    top = max((len(lines) for lines in heads), default=0) * (TEXT + 4) + (2 * GAP if heads else 0)
    left = max((math.ceil(font.getlength(text)) for text in labels), default=0)
    left += 3 * GAP if labels else 0
    columns = max(len(row) for row in rows)
    size = (left + columns * (width + GAP) - GAP, top + len(rows) * (height + GAP) - GAP)
    image = Image.new("RGB", size, PAPER)
    ink = ImageDraw.Draw(image)
    for n, lines in enumerate(heads):
        place = (left + n * (width + GAP), top - GAP)
        ink.multiline_text(place, "\n".join(lines), INK, font, anchor="ld", spacing=4)
    for r, row in enumerate(rows):
        y = top + r * (height + GAP)
        if labels:
            ink.text((GAP, y + height // 2), labels[r], INK, font, anchor="lm")
        for n, picture in enumerate(row):
            shrinks = width < picture.shape[-1]
            how = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
            drawn = to_image(picture).resize((width, height), how)
            image.paste(drawn, (left + n * (width + GAP), y))
    return image


def square(pictures_B3HW: Tensor, cell: int = CELL) -> Image:
    """A grid without labels, about as many columns as rows; a single picture is just itself."""
    columns = math.ceil(math.sqrt(len(pictures_B3HW)))
    return sheet(list(pictures_B3HW.split(columns)), cell=cell)


@dataclass(frozen=True)
class Previews:
    """Fixed prompts and noise, drawn by the teacher once and by the student again and again."""

    samples: TeacherSamples
    count: int
    steps: tuple[int, ...] = (1, 2, 4)

    @cached_property
    def teacher_B3HW(self) -> Tensor:
        """The teacher's pictures; made when first asked for."""
        ids = range(self.count)
        x_0_BCHW = self.samples.x_0(ids, self.samples.x_T(ids), self.samples.conditions(ids))
        return decode(self.samples.teacher, x_0_BCHW)

    def image(self, student: Student) -> Image:
        """Teacher, then the student with the weights that it has: at 1, 2 and 4 steps."""
        teacher, ids = self.samples.teacher, range(self.count)
        rows = [self.teacher_B3HW]
        rows += [decode(teacher, generate(student, self.samples, ids, k)) for k in self.steps]
        prompts = [self.samples.order.prompt(i) for i in ids]
        return sheet(rows, ["teacher", *map(steps_label, self.steps)], prompts, most=MOST)


def unseen_prompts(recipe: Recipe, parts: Parts, count: int, seed: int) -> Sequence[str]:
    """Prompts that training never sees, or, without metrics, training's own."""
    if recipe.metrics:
        found: list[str] = build_part(recipe.metrics[0]).prompts(count, seed)
        return found
    return parts.prompts


def make_held_out(recipe: Recipe, parts: Parts, device: Any = "cpu") -> HeldOutPairs | None:
    """Pairs that training never sees, where the recipe asks for them and has critics."""
    count = recipe.run.held_out
    if not count or not parts.critics:
        return None
    prompts = unseen_prompts(recipe, parts, count, HELD_OUT_SEED)
    chosen = [prompts[n % len(prompts)] for n in range(count)]
    return HeldOutPairs(parts.teacher, chosen, device, recipe.run.batch)


def make_previews(recipe: Recipe, parts: Parts, device: Any = "cpu") -> Previews:
    """Previews on prompts that training never sees, or, without metrics, on training's own."""
    count = recipe.run.previews
    prompts = unseen_prompts(recipe, parts, count, PREVIEW_SEED)
    return Previews(
        TeacherSamples(parts.teacher, SampleOrder(prompts, PREVIEW_SEED), device), count
    )


def steps_label(steps: int) -> str:
    """`1 step`, `4 steps`."""
    return f"{steps} step{'s' if steps > 1 else ''}"


def _size(height: int, width: int, cell: int, most: int | None) -> tuple[int, int]:
    """Drawn size of a picture."""
    side = max(height, width)
    if most is not None and side > most:
        return max(1, round(height * most / side)), max(1, round(width * most / side))
    factor = math.ceil(cell / min(height, width))
    return height * factor, width * factor


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)


def _wrap(text: str, width: int, font: Any) -> list[str]:
    """The text in lines that fit; what would be too much ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    if len(lines) > LINES:
        lines = [*lines[: LINES - 1], lines[LINES - 1] + " ..."]
    return [_cut(line, width, font) for line in lines]


def _cut(line: str, width: int, font: Any) -> str:
    """The line, shortened to the width where need be."""
    if font.getlength(line) <= width:
        return line
    line = line.removesuffix(" ...")
    while line and font.getlength(line + "...") > width:
        line = line[:-1]
    return line + "..."

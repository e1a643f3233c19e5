"""What the metrics share: prompts from a file, `compute` by `measure`, means over pictures.

Legend: B pictures, F features.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Pictures
from distillkit.errors import UserError
from distillkit.randomness import generator
from distillkit.values import Measurement, MetricInfo


def prompts_of(file: str | None, count: int, seed: int, each: int = 1) -> list[str]:
    """`count` of the file's prompts, chosen by the seed; in `each` pictures where it is more."""
    if file is None:
        raise UserError(
            "metrics: this part has no prompts of its own; set its `prompts` to a file of prompts "
            "that training does not see, or name another metrics part first"
        )
    lines = [line.strip() for line in Path(file).read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{file}: holds no prompts")
    draws = generator(seed, "metrics' prompts")
    order: list[int] = []
    while len(order) * each < count:
        order += torch.randperm(len(lines), generator=draws).tolist()
    return [lines[n] for n in order for _ in range(each)][:count]


@dataclass(frozen=True)
class Scores:
    """`contracts.Metrics` of values that each picture has by itself: their mean.

    `score(pictures, prompts)` gives one value a picture of a batch.
    """

    name: str
    meaning: MetricInfo
    file: str | None
    batch: int
    score: Callable[[Pictures, Sequence[str]], Tensor]

    @property
    def info(self) -> Mapping[str, MetricInfo]:
        return {self.name: self.meaning}

    def prompts(self, count: int, seed: int) -> list[str]:
        return prompts_of(self.file, count, seed)

    def measure(
        self, images: Pictures, prompts: Sequence[str], teacher: Pictures | None
    ) -> Measurement:
        found = []
        for first in range(0, len(images), self.batch):
            rows = slice(first, min(first + self.batch, len(images)))
            found.append(self.score(Part(images, rows), prompts[rows]).double().cpu())
        values_B = torch.cat(found)
        return Measurement({self.name: float(values_B.mean())}, {self.name: values_B.tolist()})

    def compute(
        self, images_B3HW: Tensor, prompts: Sequence[str], teacher_B3HW: Tensor
    ) -> Mapping[str, float]:
        return self.measure(images_B3HW, prompts, teacher_B3HW).values


@dataclass(frozen=True)
class Part:
    """Some of the pictures, which are still read one by one."""

    whole: Pictures
    rows: slice

    def __len__(self) -> int:
        return self.rows.stop - self.rows.start

    def __getitem__(self, rows: slice) -> Tensor:
        numbers = range(self.rows.start, self.rows.stop)[rows]
        return self.whole[numbers.start : numbers.stop]


@dataclass(frozen=True)
class Extractor:
    """Features (B, F) of pictures, kept for sets that come again, as the teacher's do."""

    extract: Callable[[Pictures], Tensor]
    kept: Any = field(default_factory=weakref.WeakKeyDictionary)

    def __call__(self, pictures: Pictures) -> Tensor:
        if isinstance(pictures, Tensor):  # may be written to; and compares element by element
            return self.extract(pictures)
        if pictures not in self.kept:
            self.kept[pictures] = self.extract(pictures)
        found: Tensor = self.kept[pictures]
        return found


@torch.no_grad()
def run_batches(batches: Any, network: Callable[[Tensor], Tensor], device: str) -> Tensor:
    """What a network makes of each batch, joined, float32 on the CPU."""
    return torch.cat([network(batch.to(device)).float().cpu() for batch in batches])

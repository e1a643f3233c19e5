"""`distillkit eval`: rows of pictures on disk, drawn by several processes, and what metrics say.

    OUT/pictures/ROW/00000012.png    every picture, by its number
    OUT/grids/*.png                  the first of them, side by side
    OUT/metrics.json, table.md, per_picture.json
    OUT/figures/*.json               what was measured, so that nothing is measured twice

Numbers, prompts and noise are those of a run's own evaluation: picture n of a seed is the same
whoever draws it, but for rounding to the 8 bits of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distillkit.atomic import remove_unfinished, write_text
from distillkit.configs import MetricsConfig
from distillkit.errors import UserError
from distillkit.evaluation.evaluate import match, write_metrics
from distillkit.evaluation.figures import Figures, tabulate
from distillkit.evaluation.grids import save_image, square
from distillkit.evaluation.metrics_set import MetricsSet
from distillkit.evaluation.pictures import PictureFolder
from distillkit.evaluation.rows import GRID, Progress, Row, steps_of, write_compare
from distillkit.evaluation.sampling import Tell, batches, decode, generate
from distillkit.evaluation.source import Source
from distillkit.evaluation.table import markdown_table
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit.training.processes import wait_for_the_last

REFERENCE = Row("teacher_reference")
"""The teacher's pictures of the same prompts and other noise, which metrics compare with."""


@dataclass(frozen=True)
class Judge:
    """One evaluation: its pictures, and its metrics."""

    source: Source
    out: Path
    prompts: Sequence[str]
    seed: int
    count: int
    """Pictures of a row. With more of them than prompts, each prompt has several seeds."""
    batch: int
    """Pictures at a time; 0 takes the recipe's."""
    processes: Any
    """Which of how many this is, and where the networks are: accelerate's state."""
    progress: Progress = lambda *_: None
    tell: Tell = lambda _: None
    command: Sequence[str] = ()
    """What `metrics.json` says that it was made by."""

    @cached_property
    def own(self) -> TeacherSamples:
        """The set that every row is drawn on."""
        order = SampleOrder(self.prompts, self.seed)
        return TeacherSamples(self.source.teacher, order, self.processes.device)

    @cached_property
    def other(self) -> TeacherSamples:
        """The same prompts with the noise of another seed."""
        order = SampleOrder(self.prompts, self.seed + 1)
        return TeacherSamples(self.source.teacher, order, self.processes.device)

    def pictures(self, row: Row) -> PictureFolder:
        """Where a row's pictures are."""
        return PictureFolder(self.out / "pictures" / row.key, range(self.count))

    def draw(self, with_reference: bool) -> None:
        """Draw what is missing, each process its share; returns when all of it is there."""
        rows = [*([REFERENCE] if with_reference else []), *self.source.rows]
        sets = [self.other if row is REFERENCE else self.own for row in rows]
        if self.processes.is_main_process:
            if freed := remove_unfinished(self.out):
                self.tell(f"Removed {freed / 1e6:,.1f} MB of unfinished files")
            for row, samples in zip(rows, sets, strict=True):
                if removed := self.pictures(row).claim(self.source.identity(row, samples)):
                    self.tell(
                        f"{row.key}: {removed} pictures of other weights, configs, prompts or "
                        "seeds are replaced"
                    )
        self.processes.wait_for_everyone()
        missing = {row.key: set(self.pictures(row).missing()) for row in rows}
        # Nobody writes before everybody has looked.
        self.processes.wait_for_everyone()
        done = self.count * len(rows) - sum(map(len, missing.values()))
        for row, samples in zip(rows, sets, strict=True):
            done = self._draw(row, samples, missing[row.key], done, self.count * len(rows))
        wait_for_the_last()

    def _draw(
        self, row: Row, samples: TeacherSamples, missing: set[int], done: int, total: int
    ) -> int:
        """This process's batches. A batch of which a part is there is drawn whole: its pictures are
        the same, bit for bit, as if nothing had been interrupted."""
        rank, world = self.processes.process_index, self.processes.num_processes
        todo = [
            ids
            for ids in batches(self.count, self.batch or self.source.batch)
            if missing & set(ids)
        ]
        folder = self.pictures(row)
        if todo[rank::world] and row.snapshot is not None:
            self.source.load(row)
        for ids in todo[rank::world]:
            x_0_BCHW = (
                samples.sample(ids, samples.x_T(ids), samples.conditions(ids))
                if row.snapshot is None
                else generate(self.source.student, samples, ids, row.steps)
            )
            for number, picture_3HW in zip(ids, decode(samples.teacher, x_0_BCHW), strict=True):
                if number in missing:
                    folder.write(number, picture_3HW)
            done = min(done + len(missing & set(ids)) * world, total)
            self.progress("pictures", done, total, row.label)
        return done

    def measure(self, configs: Sequence[MetricsConfig]) -> dict[str, Any]:
        """Every metric of every row; writes grids, table and `metrics.json`, and returns it."""
        rows = self.source.rows
        for row in rows:
            first = self.pictures(row)[: min(GRID, self.count)]
            save_image(square(first), self.out / "grids" / f"{row.key}.png")
        write_compare(self.out, rows, self.own.order, self.count)
        if not configs:
            return {}
        metrics = MetricsSet.build(configs)
        prompts = [self.own.order.prompt(i) for i in range(self.count)]
        needs = any(config.needs_teacher for config in configs)
        matched = match(prompts, [self.other.order.prompt(i) for i in range(self.count)])
        reference = PictureFolder(self.pictures(REFERENCE).folder, matched) if needs else None
        figures = Figures(metrics, self.out / "figures", prompts, self._teller(len(configs)))
        table, singles = tabulate(
            rows,
            figures,
            lambda row: self.source.identity(row, self.own) | {"count": self.count},
            lambda row: lambda: self.pictures(row),
            lambda: reference,
        )
        made_with = {
            "source": self.source.name,
            "seed": self.seed,
            "snapshots": {row.key: row.snapshot for row in rows if row.snapshot is not None},
            "steps": steps_of(rows, self.source.teacher_steps),
            "command": list(self.command),
        }
        found = write_metrics(self.out, metrics, table, singles, made_with, prompts)
        write_text(self.out / "table.md", markdown_table(found))
        return found

    def _teller(self, parts: int) -> Callable[[str, str], None]:
        """Counts measurements; rows that are known are not counted."""
        done = 0
        total = parts * len(self.source.rows)

        def tell(row: str, part: str) -> None:
            nonlocal done
            done += 1
            self.progress("metrics", min(done, total), total, f"{part} of {row}")

        return tell


def check_teacher(configs: Sequence[MetricsConfig], has_teacher: bool) -> None:
    """Raise `UserError` for metrics that need the teacher's pictures where there are none."""
    wanting = [config.name() for config in configs if config.needs_teacher]
    if wanting and not has_teacher:
        raise UserError(
            f"--metrics {','.join(wanting)}: compares with the teacher's pictures; add --teacher"
        )

"""Runs beside each other: one table with intervals, one page with their pictures.

Runs whose recipes differ in `run.seed` alone are seeds of one group. Groups are compared with the
first. A metric that is better nearer to the teacher's is compared by its distance to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distillkit.atomic import write_text
from distillkit.errors import UserError
from distillkit.evaluation import table
from distillkit.evaluation.rows import COLUMNS, LABELS
from distillkit.report.paired import Difference, difference
from distillkit.report.report import as_json, picture, render
from distillkit.runs.folder import RunFolder

SAME = "not distinguishable"
UNKNOWN = "no interval"


@dataclass(frozen=True)
class Judged:
    """A run, or a folder that `distillkit eval` wrote."""

    path: Path
    metrics: Mapping[str, Any]
    singles: Mapping[str, Any]
    recipe: Mapping[str, Any]

    @property
    def seed(self) -> Any:
        """Of training."""
        return (self.recipe.get("run") or {}).get("seed", 0)

    @property
    def kind(self) -> str:
        """What runs of one group share: the recipe without its seed, or the folder itself."""
        if not self.recipe:
            return str(self.path.resolve())
        run = {k: v for k, v in (self.recipe.get("run") or {}).items() if k != "seed"}
        return json.dumps(dict(self.recipe) | {"run": run}, sort_keys=True, default=str)

    def value(self, row: str, metric: str) -> float | None:
        """A row's metric; its distance to the teacher's where nearer to that is better."""
        found = self.metrics.get(row, {}).get(metric)
        if found is None or self.better(metric) != "teacher":
            return found
        own = self.metrics.get("teacher", {}).get(metric)
        return None if own is None else abs(found - own)

    def better(self, metric: str) -> str | None:
        """Which values are better."""
        return self.metrics.get("info", {}).get(metric, {}).get("better")

    def single(self, row: str, metric: str) -> list[float] | None:
        """Each picture's own value."""
        found = self.singles.get("rows", {}).get(row, {}).get(metric)
        return list(found) if found and self.better(metric) != "teacher" else None

    @property
    def prompts(self) -> list[str] | None:
        """Of each picture; None without values of single pictures."""
        return self.singles.get("prompts")

    @property
    def drawn(self) -> str:
        """Which prompts and noise its pictures were drawn with."""
        seed = self.metrics.get("made_with", {}).get("seed")
        return json.dumps([self.singles.get("seed", seed), self.prompts])

    @property
    def num_images(self) -> int | None:
        """Pictures of a row."""
        return next(iter(table.rows_in(self.metrics).values())).get("num_images")

    def pictures(self, row: str) -> list[Path]:
        """The first pictures of a row."""
        return sorted((self.path / "pictures" / row).glob("[0-9]" * 8 + ".png"))[:COLUMNS]


@dataclass(frozen=True)
class Group:
    """Runs of one recipe with different seeds."""

    runs: Sequence[Judged]

    @property
    def name(self) -> str:
        """Of its first run."""
        first = self.runs[0].path.resolve()
        name = first.parent.name if first.name == "eval" else first.name
        more = len(self.runs) - 1
        return f"{name} (+ {more} seed{'s' if more > 1 else ''})" if more else name

    def mean(self, row: str, metric: str) -> float | None:
        """Over its runs, of the value as it was measured; None where one has none."""
        found = [run.metrics.get(row, {}).get(metric) for run in self.runs]
        return None if None in found else sum(found) / len(found)


@dataclass(frozen=True)
class Line:
    """One metric of one row."""

    row: str
    metric: str
    title: str
    means: Sequence[float | None]
    differences: Sequence[Difference | None]
    """Of every group but the first, to the first."""
    better: str | None

    def mark(self, of: Difference | None) -> str:
        """`better`, `worse`, or nothing."""
        if of is None or not of.distinguishable or self.better is None:
            return ""
        return "better" if (of.value > 0) == (self.better == "higher") else "worse"

    def verdict(self, of: Difference | None) -> str:
        """In words: the sign is not enough, since lower is better for some metrics."""
        if of is None:
            return "–"
        text = f"{of.value:+.3g}"
        if of.low is None or of.high is None:
            return f"{text} ({UNKNOWN})"
        text += f" [{of.low:+.3g}, {of.high:+.3g}]"
        return f"{text} {self.mark(of) or ('differs' if of.distinguishable else SAME)}"


def read_judged(folder: Path) -> Judged:
    """What a folder says. Raises `UserError` without metrics."""
    metrics = as_json(folder / "metrics.json")
    places = (folder / "recipe.yaml", folder.parent / "recipe.yaml")
    text = next((p.read_text(encoding="utf-8") for p in places if p.is_file()), "{}")
    try:
        recipe = yaml.safe_load(text)
    except yaml.YAMLError:
        recipe = None
    recipe = recipe if isinstance(recipe, dict) else {}
    if not table.rows_in(metrics):
        raise UserError(_without_rows(folder, recipe))
    return Judged(folder, metrics, as_json(folder / "per_picture.json"), recipe)


def _without_rows(folder: Path, recipe: Mapping[str, Any]) -> str:
    """What to do about a folder that has no metrics."""
    if not RunFolder(folder).student.is_dir() or recipe.get("metrics"):
        return (
            f"{folder} has no metrics.json with rows: name runs that are finished, or folders that "
            "`distillkit eval` wrote"
        )
    return (
        f"{folder} is finished, and its recipe has no metrics: measure it by `distillkit eval "
        f"{folder} --prompts FILE --metrics NAME`, and name {folder / 'eval'} here"
    )


def group(runs: Sequence[Judged], together: bool = False) -> list[Group]:
    """Runs of one recipe together, in the order in which they were named.

    Where all are seeds of one recipe, each is a group of its own unless `together` is set.
    """
    kinds: dict[str, list[Judged]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    if len(kinds) == 1 and not together:
        return [Group([run]) for run in runs]
    return [Group(members) for members in kinds.values()]


def compare(groups: Sequence[Group]) -> list[Line]:
    """Every metric of every row that all runs have."""
    first = groups[0].runs[0]
    everyone = [run for each in groups for run in each.runs]
    lines = []
    for row in (row for row in LABELS if all(row in run.metrics for run in everyone)):
        for metric in table.columns_in(first.metrics):
            means = [each.mean(row, metric) for each in groups]
            if None in means:
                continue
            others = [_difference(groups[0], each, row, metric) for each in groups[1:]]
            title, better = table.title(first.metrics, metric), first.better(metric)
            lines.append(Line(row, metric, title, means, others, better))
    return lines


def cells(groups: Sequence[Group], lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
    """Heads and texts of the table of differences; a row's label stands in its first line."""
    heads = ["", "", *(each.name for each in groups)]
    heads += [f"{each.name} - {groups[0].name}" for each in groups[1:]]
    texts, before = [], ""
    for line in lines:
        label = LABELS[line.row] if line.row != before else ""
        before = line.row
        means = [table.show(mean) for mean in line.means]
        texts.append([label, line.title, *means, *map(line.verdict, line.differences)])
    return heads, texts


def _difference(one: Group, other: Group, row: str, metric: str) -> Difference | None:
    """Of single pictures' values where all runs have as many; of the rows' values otherwise."""
    a, b, same_runs = _paired(one, other)
    singles = [run.single(row, metric) for run in (*a, *b)]
    if all(singles) and len({len(values or ()) for values in singles}) == 1:
        return difference(
            singles[: len(a)],
            singles[len(a) :],
            same_runs=same_runs,
            same_pictures=len({run.drawn for run in (*a, *b)}) == 1,
            prompts=(a[0].prompts, b[0].prompts),
        )
    values = [run.value(row, metric) for run in (*a, *b)]
    if None in values:
        return None
    whole = [[value] for value in values]
    found = difference(whole[: len(a)], whole[len(a) :], same_runs=same_runs, same_pictures=True)
    as_many = len({run.num_images for run in (*a, *b)}) == 1
    return found if as_many else Difference(found.value)


def paired_seeds(one: Group, other: Group) -> list[Any]:
    """The seeds that both groups have, in the order of the first."""
    theirs = {run.seed for run in other.runs}
    return list(dict.fromkeys(run.seed for run in one.runs if run.seed in theirs))


def _paired(one: Group, other: Group) -> tuple[Sequence[Judged], Sequence[Judged], bool]:
    """The runs whose seeds both groups have, in one order; all of them where none is shared."""
    seeds = paired_seeds(one, other)
    if not seeds:
        return one.runs, other.runs, False
    ours, theirs = ({run.seed: run for run in each.runs} for each in (one, other))
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], True


def write_page(
    groups: Sequence[Group], lines: Sequence[Line], notes: Sequence[str], path: Path
) -> Path:
    """The comparison as one page that opens offline. `notes`: sentences below its table."""
    shown = []
    for row in dict.fromkeys(line.row for line in lines):
        strips = [
            {"name": each.name, "pictures": [picture(p) for p in each.runs[0].pictures(row)]}
            for each in groups
        ]
        if any(strip["pictures"] for strip in strips):
            shown.append({"label": LABELS[row], "strips": strips})
    heads, texts = cells(groups, lines)
    unmarked = [""] * (2 + len(groups))
    marks = [[*unmarked, *map(line.mark, line.differences)] for line in lines]
    page = {
        "names": [each.name for each in groups],
        "folders": [[str(run.path) for run in each.runs] for each in groups],
        "heads": heads,
        "lines": [list(zip(*line, strict=True)) for line in zip(texts, marks, strict=True)],
        "notes": notes,
        "shown": shown,
    }
    write_text(path, render("compare.html.j2", page))
    return path

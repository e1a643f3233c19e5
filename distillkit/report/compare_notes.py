"""The sentences below a comparison: what its differences are, and what they can't tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from distillkit.report.compare import UNKNOWN, Group, Line, paired_seeds
from distillkit.report.paired import FEWEST_RUNS


def notes(groups: Sequence[Group], lines: Sequence[Line]) -> list[str]:
    """For the table of these lines, one sentence each; empty where nothing needs saying."""
    return [
        *_of_the_teachers(lines),
        *_left_out(groups),
        *_judged_apart(groups),
        *_unknown(groups, lines),
    ]


def _of_the_teachers(lines: Sequence[Line]) -> Iterator[str]:
    titles = list(dict.fromkeys(line.title for line in lines if line.better == "teacher"))
    if titles:
        yield (
            f"{', '.join(titles)}: nearer to the teacher's is better, so the difference is of the "
            "distance to it, and not of the means shown."
        )


def _left_out(groups: Sequence[Group]) -> Iterator[str]:
    for other in groups[1:]:
        seeds = paired_seeds(groups[0], other)
        if seeds and len(seeds) < max(len(groups[0].runs), len(other.runs)):
            named = ", ".join(map(str, seeds))
            word = "seed that both have" if len(seeds) == 1 else "seeds that both have"
            yield f"{other.name} - {groups[0].name}: over the {word}, {named}."


def _judged_apart(groups: Sequence[Group]) -> Iterator[str]:
    runs = [run for each in groups for run in each.runs]
    counts = sorted({count for run in runs if (count := run.num_images) is not None})
    if len(counts) > 1:
        yield (
            f"Judged on {', '.join(map(str, counts))} pictures: distances of sets depend on the "
            "number, so their differences have no interval; `distillkit eval --count N` gives "
            "both as many."
        )
    elif len({run.drawn for run in runs}) > 1:
        yield "The pictures are of other prompts or noise, so they are not paired."


def _unknown(groups: Sequence[Group], lines: Sequence[Line]) -> Iterator[str]:
    differences = [of for line in lines for of in line.differences if of is not None]
    first = groups[0]
    runs = [
        len(paired_seeds(first, other)) or min(len(first.runs), len(other.runs))
        for other in groups[1:]
    ]
    if any(of.low is None for of in differences) and min(runs) < FEWEST_RUNS:
        yield (
            f"{UNKNOWN.capitalize()}: the metric has no values of single pictures, and one run of "
            "a recipe does not tell what others would give."
        )

"""Contract of a refinement."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from distillkit.configs import ComponentConfig
from distillkit.testing.building import built
from distillkit.testing.findings import Findings, seeded
from distillkit.training.guard.returns import check_stage

MOST = 2000
"""Iterations that are looked at from the start; later ones at as many places in all."""

MOST_STAGES = 100


def refinement_findings(config: ComponentConfig) -> Findings:
    """One to four steps in every iteration, drawn from the generator; stages in one piece each."""
    part, twin = (built(config, process=p) for p in (1, 2))
    if type(part.iterations) is not int or part.iterations < 1:
        yield f"iterations: {part.iterations!r} leaves nothing to train: a whole number from 1"
        return
    asked: dict[int, tuple[str, int]] = {}
    for i in _places(part.iterations):
        asked[i] = _asked(part, i)
        if found := _flaw(part, i, *asked[i]):
            yield found
            return
    stages = [name for name, _ in groupby(name for name, _ in asked.values())]
    if len(set(stages)) < len(stages):
        yield f"stage(): a stage comes back after another one: {', '.join(stages[:6])}"
    if len(stages) > MOST_STAGES:
        yield (
            f"stage(): {len(stages)} stages, such as {stages[0]!r} and {stages[1]!r}: each ends "
            f"with a snapshot of the student's weights, so there are at most {MOST_STAGES}"
        )
    # A resumed run begins in the middle.
    for i in reversed(asked):
        if _asked(twin, i) != asked[i]:
            yield f"steps(), stage(): iteration {i} depends on which were asked for before"
            return


def _places(iterations: int) -> list[int]:
    later = range(MOST, iterations, max(1, iterations // MOST))
    return sorted({*range(min(MOST, iterations)), *later, iterations - 1})


def _asked(part: Any, i: int) -> tuple[Any, Any]:
    return part.stage(i), part.steps(i, seeded(i))


def _flaw(part: Any, i: int, name: Any, steps: Any) -> str | None:
    """What is wrong with one iteration, if anything."""
    if type(steps) is not int or not 1 <= steps <= 4:
        return f"steps(): {steps!r} in iteration {i}; a roll-out has 1 to 4 steps"
    if steps != part.steps(i, seeded(i)):
        return f"steps(): iteration {i} differs between two calls with the same generator"
    if flaw := check_stage(name):
        return f"stage() in iteration {i} {flaw}"
    return None

"""Contracts of what needs no network: refinement, prompts, metrics."""

from __future__ import annotations

import math
from typing import Any

from distillkit.configs import ComponentConfig
from distillkit.testing.findings import Findings, noise, seeded

MOST = 2000
"""Iterations and prompts that are looked at, from the start and to the end."""


def refinement(config: ComponentConfig) -> Findings:
    """One to four steps in every iteration, drawn from the generator; stages in one piece each."""
    part: Any = config.build()  # type: ignore[attr-defined]
    if part.iterations < 1:
        yield f"iterations: {part.iterations} leaves nothing to train"
        return
    seen: list[str] = []
    for i in sorted({*range(min(MOST, part.iterations)), part.iterations - 1}):
        name, steps = part.stage(i), part.steps(i, seeded(i))
        if type(steps) is not int or not 1 <= steps <= 4:
            yield f"steps(): {steps!r} in iteration {i}; a roll-out has 1 to 4 steps"
            return
        if steps != part.steps(i, seeded(i)):
            yield f"steps(): iteration {i} differs between two calls with the same generator"
            return
        if not isinstance(name, str) or not name or "/" in name:
            yield f"stage(): {name!r} in iteration {i}; a stage's name is a snapshot's file name"
            return
        if not seen or seen[-1] != name:
            seen.append(name)
    if len(set(seen)) != len(seen):
        yield f"stage(): a stage comes back after another one: {', '.join(seen[:6])}"


def prompts(config: ComponentConfig) -> Findings:
    """A sequence of strings that are not empty, the same in every process."""
    part, twin = (config.build() for _ in range(2))  # type: ignore[attr-defined]
    if not len(part):
        yield "it gave no prompt"
        return
    for i in sorted({*range(min(MOST, len(part))), len(part) - 1}):
        if not isinstance(part[i], str) or not part[i].strip():
            yield f"prompt {i} is {part[i]!r}, not a line of text"
            return
        if part[i] != twin[i]:
            yield f"prompt {i} differs between two processes: {part[i]!r} and {twin[i]!r}"
            return


def metrics(config: ComponentConfig) -> Findings:
    """As many prompts as asked for; metrics that are declared, finite, and the same twice."""
    part: Any = config.build()  # type: ignore[attr-defined]
    asked = part.prompts(8, 3)
    if len(asked) != 8 or not all(isinstance(p, str) and p.strip() for p in asked):
        yield "prompts(8, seed): should give eight lines of text"
    if asked != part.prompts(8, 3):
        yield "prompts(): differ between two calls with the same seed"
    if asked == part.prompts(8, 4):
        yield "prompts(): do not depend on the seed"
    pictures, teacher = (noise((8, 3, 64, 64), key).sigmoid() for key in ("fake", "real"))
    values = part.compute(pictures, asked, teacher)
    if not values:
        yield "compute(): gave none"
    if undeclared := sorted(values.keys() - part.info.keys()):
        yield f"compute(): {undeclared[0]!r} has no entry in `info`"
    for name, value in values.items():
        if not isinstance(name, str) or type(value) not in (int, float) or not math.isfinite(value):
            yield f"compute(): {name!r} is {value!r}, not a finite number"
    if values != part.compute(pictures, asked, teacher):
        yield "compute(): differs between two calls with the same pictures"

"""Contract of a refresh policy. Legend: N heads of the pool."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, cast

import torch

from distillkit.configs import ComponentConfig, RefreshConfig
from distillkit.testing.building import built
from distillkit.testing.findings import Findings, calling, seeded
from distillkit.values import HeadStats


def refresh_findings(config: ComponentConfig) -> Findings:
    """Distinct heads of the pool, as a function of iteration, statistics and generator alone."""
    part, twin = (built(config, process=p) for p in (1, 2))
    with calling("reset_chance()"):
        chance = cast("RefreshConfig", config).reset_chance(0.5)
    if chance is not None and not 0 <= chance <= 1:
        yield f"reset_chance(): {chance!r} is no chance in [0, 1]"
    for count in (1, 5, 480):
        for what, stats in _stats(count):
            for i in (0, 1, 2, 3, 99, 999):
                where = f"pick(): iteration {i} of a pool of {count}{what}"
                found = list(_picked(part, twin, i, stats, where))
                yield from found
                if found:
                    return  # the other pools have the same flaw


def _stats(count: int) -> Iterator[tuple[str, HeadStats]]:
    """Pools of that many heads: one that has been trained, one whose heads have seen nothing."""
    age_N = torch.randint(1, 300, (count,), generator=seeded("age"))
    learned_N = torch.rand(count, generator=seeded("drawn")) < 0.5
    updates_N = age_N // 30 + learned_N
    accuracy_N = torch.rand(count, generator=seeded("accuracy"), dtype=torch.float64)
    nan = torch.tensor(torch.nan, dtype=torch.float64)
    yield "", HeadStats(age_N, updates_N, learned_N, accuracy_N.where(updates_N > 0, nan))
    new = HeadStats(
        age_N=torch.ones_like(age_N),
        updates_N=torch.zeros_like(age_N),
        learned_N=torch.zeros_like(learned_N),
        accuracy_N=nan.expand(count).clone(),
    )
    yield " whose heads have seen no picture (accuracy NaN)", new


def _picked(part: Any, twin: Any, i: int, stats: HeadStats, where: str) -> Findings:
    given = _copy(stats)
    with calling(where):
        picked = part.part.pick(i, given, seeded(i))
    for name, before, after in zip(_NAMES, _tensors(stats), _tensors(given), strict=True):
        if not torch.allclose(before.double(), after.double(), 0, 0, equal_nan=True):
            yield f"pick(): changed `{name}` of what it was given"
    if isinstance(picked, str) or not hasattr(picked, "__len__"):
        yield f"{where}: gave {picked!r}, not a list of heads"
        return
    heads = list(picked)
    if any(type(head) is not int for head in heads):
        yield f"{where}: heads should be whole numbers of Python, not {heads[:3]}"
    elif len(set(heads)) != len(heads) or not set(heads) <= set(range(len(stats))):
        yield f"{where}: {heads[:8]} are not distinct heads of it"
    elif heads != list(twin.pick(i, _copy(stats), seeded(i))):
        yield f"{where}: two processes pick different heads from the same generator"
    elif heads != list(part.pick(i, _copy(stats), seeded(i))):
        yield f"{where}: what is picked depends on what was picked before"


_NAMES = [field.name for field in fields(HeadStats)]


def _tensors(stats: HeadStats) -> list[torch.Tensor]:
    return [getattr(stats, name) for name in _NAMES]


def _copy(stats: HeadStats) -> HeadStats:
    return HeadStats(*(t.clone() for t in _tensors(stats)))

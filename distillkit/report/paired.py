"""Whether two groups of values differ: bootstrap intervals of the difference of their means.

Legend: S runs (training seeds) of a group, N pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
FEWEST_RUNS = 3
"""Runs a group that an interval over runs takes: of fewer there are too few resamples."""


@dataclass(frozen=True)
class Difference:
    """Mean of the second group minus mean of the first."""

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""
    """What was resampled: `pictures`, `runs`, or both."""

    @property
    def distinguishable(self) -> bool | None:
        """Whether the interval leaves zero out; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0


def difference(
    a_SN: Any, b_SN: Any, *, same_runs: bool, same_pictures: bool, resamples: int = RESAMPLES
) -> Difference:
    """The difference of two groups' means with its interval of 95 %, by percentiles.

    Runs are resampled first, then pictures. Where both groups have the same seeds or the same
    prompts and noise, they are resampled together (paired), so that what they share does not count.
    A metric of whole rows has N = 1, and an interval if both groups have `FEWEST_RUNS` runs.
    """
    a_SN, b_SN = np.asarray(a_SN, dtype=float), np.asarray(b_SN, dtype=float)
    value = float(b_SN.mean() - a_SN.mean())
    over_runs = min(len(a_SN), len(b_SN)) >= FEWEST_RUNS
    over_pictures = min(a_SN.shape[1], b_SN.shape[1]) > 1
    if not (over_runs or over_pictures):
        return Difference(value)
    draws = np.random.default_rng(0)
    found = []
    for _ in range(resamples):
        runs_a = _pick(draws, len(a_SN)) if over_runs else np.arange(len(a_SN))
        runs_b = _pick(draws, len(b_SN)) if over_runs else np.arange(len(b_SN))
        runs_b = runs_a if same_runs else runs_b
        pictures_a = _pick(draws, a_SN.shape[1])
        pictures_b = pictures_a if same_pictures else _pick(draws, b_SN.shape[1])
        mean_a = a_SN[runs_a].mean(0)[pictures_a].mean()
        mean_b = b_SN[runs_b].mean(0)[pictures_b].mean()
        found.append(mean_b - mean_a)
    low, high = np.percentile(found, (2.5, 97.5))
    names = [name for name, is_so in (("runs", over_runs), ("pictures", over_pictures)) if is_so]
    return Difference(value, float(low), float(high), " and ".join(names))


def _pick(draws: Any, count: int) -> Any:
    return draws.integers(0, count, count)

"""Whether two groups of values differ: intervals of 95 % of the difference of their means.

By Student's t, which holds for the few runs that there are. A bootstrap of three runs calls chance
a difference every fourth time: its interval is the range of what was seen.

Legend: S runs (training seeds) of a group, N pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST_RUNS = 2
"""Runs a group that an interval over runs takes."""
T_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantile of Student's t with 1, 2, 3, ... degrees of freedom."""

Prompts = Sequence[str] | None


@dataclass(frozen=True)
class Difference:
    """Mean of the second group minus mean of the first."""

    value: float
    low: float | None = None
    high: float | None = None
    over: str = ""
    """What it holds beyond: these `pictures`, these `runs`, or both."""

    @property
    def distinguishable(self) -> bool | None:
        """Whether the interval leaves zero out; None where there is no interval."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Error:
    """Variance of a mean, as it was estimated with so many degrees of freedom."""

    variance: float
    freedom: float

    @property
    def half(self) -> float:
        """Half of the 95 % interval's width."""
        return t_95(self.freedom) * float(np.sqrt(self.variance))


def t_95(freedom: float) -> float:
    """97.5 % quantile of Student's t; within 0.1 % beyond the table, by its expansion in 1/n."""
    n = int(freedom)
    if n <= len(T_95):
        return T_95[max(n, 1) - 1]
    return 1.95996 + 2.37227 / n + 2.8225 / n**2 + 2.5556 / n**3


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half the width of its 95 % interval; None for a single value.

    0, 1, 2: mean 1, standard deviation 1, so 4.303 / sqrt(3) = 2.48.
    """
    mean = float(np.mean(values))
    return mean, _of(np.asarray(values, dtype=float)).half if len(values) > 1 else None


def difference(
    a_SN: Any,
    b_SN: Any,
    *,
    same_runs: bool,
    same_pictures: bool,
    prompts: tuple[Prompts, Prompts] = (None, None),
) -> Difference:
    """The difference of two groups' means with its interval of 95 %.

    Where both groups have the same seeds, or the same prompts and noise, differences are taken one
    by one (paired), so that what they share does not count. `prompts` of each group, one a picture:
    pictures of one prompt are alike, and count as one draw. A metric of whole rows has N = 1, and
    an interval if both groups have `FEWEST_RUNS` runs. Runs and pictures are drawn apart, so their
    errors add up.
    """
    a_SN, b_SN = np.asarray(a_SN, dtype=float), np.asarray(b_SN, dtype=float)
    value, errors = float(b_SN.mean() - a_SN.mean()), {}
    if min(len(a_SN), len(b_SN)) >= FEWEST_RUNS:
        errors["runs"] = _error(a_SN.mean(1), b_SN.mean(1), same_runs)
    if min(a_SN.shape[1], b_SN.shape[1]) > 1:
        errors["pictures"] = _error(a_SN.mean(0), b_SN.mean(0), same_pictures, prompts)
    if not errors:
        return Difference(value)
    half = float(np.sqrt(sum(error.half**2 for error in errors.values())))
    return Difference(value, value - half, value + half, " and ".join(errors))


def _error(a: Any, b: Any, paired: bool, prompts: tuple[Prompts, Prompts] = (None, None)) -> Error:
    """Of b's mean minus a's. Not paired: Welch's, whose groups may spread differently."""
    if paired:
        return _of(b - a, prompts[0])
    one, other = _of(a, prompts[0]), _of(b, prompts[1])
    variance = one.variance + other.variance
    parts = sum(error.variance**2 / error.freedom for error in (one, other))
    return Error(variance, variance**2 / parts if parts else one.freedom + other.freedom)


def _of(values: Any, prompts: Prompts = None) -> Error:
    """Of the mean of values, of which those of one prompt are one draw."""
    off = values - values.mean()
    if prompts is not None and len(set(prompts)) > 1:  # else it is of this prompt alone
        _, which = np.unique(np.asarray(prompts), return_inverse=True)
        off = np.bincount(which, weights=off)
    count = len(off)
    return Error(float((off**2).sum()) * count / (count - 1) / len(values) ** 2, count - 1)

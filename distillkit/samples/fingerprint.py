"""What a teacher computes with beside its weights: a few numbers that an index states.

A scheduler's config or a tokenizer can be mended while every weight stays as it is; samples that
were made before are then another teacher's. The numbers are compared with a tolerance, since
devices and number formats round otherwise. What was made before there were any has none, and stays.

Legend: T noise levels, V values of one prompt's condition, N numbers that are kept of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distillkit.contracts import Teacher
from distillkit.randomness import generator

KEY = "computes_with"
"""Of an identity and of an index: what is compared by `differing`, and only where both have it."""
LEVELS, NUMBERS, LOOKED_AT = 11, 16, 64
"""Noise levels that are stated, numbers of a condition, prompts of which the longest is encoded."""
TOLERANCE = {"noise schedule": 1e-3, "encoding of prompts": 0.1}
"""Largest distance, as a share of the numbers' norm. In bfloat16 CLIP's condition is 0.01 from
float32's; one word of fourteen moves it by 0.24."""


@torch.no_grad()
def fingerprint(teacher: Teacher, prompts: Sequence[str] = ()) -> dict[str, Any]:
    """Noise schedule and prediction; with prompts, what the encoder makes of a long one of them."""
    schedule = teacher.schedule
    places = torch.linspace(0, len(schedule) - 1, LEVELS).long()
    signal_T = schedule.alpha_bar_T.detach().cpu().double()[places].sqrt()
    found: dict[str, Any] = {
        "prediction": teacher.denoiser.prediction,
        "noise schedule": {"levels": [len(schedule)], "signal": _rounded(signal_T)},
    }
    if schedule.sigma_T is not None:
        sigma_T = schedule.sigma_T.detach().cpu().double()[places]
        found["noise schedule"]["sigma"] = _rounded(sigma_T)
    if len(prompts):
        longest = max((prompts[i] for i in range(min(len(prompts), LOOKED_AT))), key=len)
        tensors = teacher.encode([longest]).tensors
        kept = {name: _sketch(_text(name, tensors)) for name in tensors}
        # NaN of a broken encoder equals nothing, itself neither.
        finite = {name: row for name, row in kept.items() if torch.tensor(row).isfinite().all()}
        found["encoding of prompts"] = finite
    return found


def differing(there: Any, here: Any) -> list[str]:
    """What two fingerprints differ in, by name; nothing where one is missing."""
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return []
    found = []
    if there.get("prediction") != here.get("prediction"):
        was, now = there.get("prediction"), here.get("prediction")
        found.append(f"prediction ({was} there, {now} here)")
    for name, tolerance in TOLERANCE.items():
        was, now = there.get(name, {}), here.get(name, {})
        if any(not _close(was[key], now[key], tolerance) for key in was.keys() & now.keys()):
            found.append(name)
    return found


def agree(there: Any, here: Mapping[str, Any]) -> bool:
    """Whether an index, read from JSON, states this identity."""
    if not isinstance(there, Mapping) or differing(there.get(KEY), here.get(KEY)):
        return False
    return plain(there) == plain(here)


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The identity without its fingerprint: what names of files and folders are made of."""
    return {name: value for name, value in identity.items() if name != KEY}


def _text(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """A prompt's tensor (V) in float64, without what stands beside the text."""
    row = tensors[name][0].detach().cpu().double()
    mask = tensors.get(f"{name}_mask")
    if mask is not None and row.ndim:
        row = row * mask[0].detach().cpu().reshape(-1, *[1] * (row.ndim - 1))
    return row.flatten()


def _sketch(row_V: Tensor) -> list[float]:
    """N sums of the values with random signs: as far from another row's, measured by their norm,
    as the rows are from each other, give or take a quarter."""
    signs_V = torch.randint(0, 2, row_V.shape, generator=generator(0, "fingerprint")) * 2 - 1
    padded = torch.nn.functional.pad(row_V * signs_V, (0, -len(row_V) % NUMBERS))
    return _rounded(padded.reshape(-1, NUMBERS).sum(0))


def _rounded(row_N: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in row_N.tolist()]


def _close(there: Sequence[float], here: Sequence[float], tolerance: float) -> bool:
    if len(there) != len(here):
        return False
    a_N, b_N = torch.tensor(there).double(), torch.tensor(here).double()
    return bool((a_N - b_N).norm() <= tolerance * torch.maximum(a_N.norm(), b_N.norm()))

"""Contract of a source of prompts. Legend: B pictures."""

from __future__ import annotations

from typing import Any

from distillkit.configs import ComponentConfig
from distillkit.testing.building import built
from distillkit.testing.findings import Findings, calling, shape_of

MOST = 2000
"""Prompts that are looked at from the start; the last one too."""


def prompts_findings(config: ComponentConfig, size: tuple[int, int]) -> Findings:
    """A sequence of strings that are not empty, the same in every process.

    `size`: height and width that pictures of a source of pictures are asked in.
    """
    part, twin = (built(config, process=p).part for p in (1, 2))
    if isinstance(part, str):
        yield "it gave one string, not a sequence of prompts"
        return
    with calling("len()"):
        count, other = len(part), len(twin)
    if not count or count != other:
        yield (
            f"it gave {count} prompts, and {other} in another process"
            if count
            else ("it gave no prompt")
        )
        return
    for i in sorted({*range(min(MOST, count)), count - 1}):
        with calling(f"prompt {i} of {count}"):
            prompt, again = part[i], twin[i]
        if not isinstance(prompt, str) or not prompt.strip():
            yield f"prompt {i} is {prompt!r}, not a line of text"
            return
        if prompt != again:
            yield f"prompt {i} differs between two processes: {prompt!r} and {again!r}"
            return
    if hasattr(part, "images"):
        yield from _pictures(part, count, size)


def _pictures(part: Any, count: int, size: tuple[int, int]) -> Findings:
    """Of a source for `samples.real: pictures`."""
    indices = list(range(min(2, count)))
    with calling("images()"):
        images_B3HW = part.images(indices, *size)
    if shape_of(images_B3HW) != (len(indices), 3, *size):
        yield f"images(): gave {shape_of(images_B3HW)}, not {(len(indices), 3, *size)}"
    elif not 0 <= float(images_B3HW.min()) <= float(images_B3HW.max()) <= 1:
        yield "images(): pictures leave the range [0, 1]"
    with calling("digest()"):
        digest = part.digest()
    if not isinstance(digest, str) or not digest:
        yield f"digest(): gave {digest!r}, not a short text that changes when a picture does"

"""Captions for training, and captions that training never sees."""

from __future__ import annotations

import hashlib

from distillkit.randomness import generator
from distillkit_shapes.scenes import captions, draw_scenes

HELD_OUT = 8
"""One caption in so many is held out, by its own digest: no list to keep, no seed to share."""


def is_held_out(caption: str) -> bool:
    """Whether the caption belongs to the figures and not to training."""
    return hashlib.sha256(caption.encode()).digest()[0] % HELD_OUT == 0


def draw_captions(count: int, seed: int, held_out: bool) -> list[str]:
    """`count` captions of random scenes from one side of the split; some come more than once."""
    source, found = generator(seed, "captions", int(held_out)), list[str]()
    while len(found) < count:
        drawn = captions(draw_scenes(count, source))
        found += [caption for caption in drawn if is_held_out(caption) == held_out]
    return found[:count]

"""Pairs of noise and teacher sample, by number: sampled online, or read from a cache.

A sample's prompt, x_T and x_0 depend on its number alone, so a cache changes no run: online and
cached runs of a deterministic teacher are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from distillkit.contracts import Condition, Teacher
from distillkit.randomness import generator, noise
from distillkit.samples.order import Stream


class Kept(Protocol):
    """Samples that were made before, by number; `distillkit.samples.cache` has them on disk."""

    def x_0(self, ids: Sequence[int]) -> Tensor:
        """The teacher's samples, (B, C, H, W)."""
        ...

    def conditions(self, ids: Sequence[int]) -> Condition | None:
        """What the networks are told of each; None where only the samples are kept."""
        ...


@dataclass(frozen=True)
class Pairs:
    """Numbered samples: what student and teacher both start from, and where the teacher ends."""

    teacher: Teacher
    stream: Stream
    device: Any = "cpu"
    cache: Kept | None = None
    """None samples online."""

    def conditions(self, ids: Sequence[int]) -> Condition:
        """What the networks are told of each sample."""
        kept = self.cache.conditions(ids) if self.cache is not None else None
        if kept is None:
            kept = self.teacher.encode([self.stream.prompt(i) for i in ids])
        return kept.to(self.device)

    def x_T(self, ids: Sequence[int]) -> Tensor:
        """The noise of each sample, (B, C, H, W)."""
        return noise(self.teacher.latent_shape, self.stream.seed, "x_T", ids).to(self.device)

    def x_0(self, ids: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample for each: from the cache, or sampled here."""
        if self.cache is not None:
            return self.cache.x_0(ids).to(self.device)
        return self.sample(ids, x_T_BCHW, cond)

    @torch.no_grad()
    def sample(self, ids: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample for each, sampled here."""
        generators = [generator(self.stream.seed, "teacher", i) for i in ids]
        return self.teacher.sample(x_T_BCHW, cond, generators)

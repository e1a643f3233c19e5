"""Pairs (x_T, the teacher's x_0) by sample id: sampled online, or read from a cache.

A sample's prompt, x_T and x_0 depend on its id alone, so a cache changes no run: online and cached
runs of a deterministic teacher are the same.

Legend: B batch, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from distillkit.contracts import Teacher
from distillkit.randomness import generator, noise
from distillkit.samples.buffer import SampleBuffer
from distillkit.samples.fingerprint import fingerprint
from distillkit.samples.order import SampleOrder
from distillkit.values import Condition, sent


class SampleStore(Protocol):
    """Samples that were made before, by id; `distillkit.samples.cache` has them on disk."""

    def x_0(self, ids: Sequence[int]) -> Tensor:
        """The teacher's samples, (B, C, H, W)."""
        ...

    def conditions(self, ids: Sequence[int]) -> Condition | None:
        """The condition of each; None where only the samples are stored."""
        ...


@dataclass(frozen=True)
class TeacherSamples:
    """Samples by id: the condition, the noise x_T, and the teacher's x_0."""

    teacher: Teacher
    order: SampleOrder
    device: Any = "cpu"
    cache: SampleStore | None = None
    """None samples online."""
    buffer: SampleBuffer | None = None
    """Samples that come again; without it, and beside a cache, none is kept."""

    def conditions(self, ids: Sequence[int]) -> Condition:
        """The condition of each sample."""
        cond = self.cache.conditions(ids) if self.cache is not None else None
        if cond is None:
            cond = self.teacher.encode([self.order.prompt(i) for i in ids])
        return cond.to(self.device)

    def x_T(self, ids: Sequence[int]) -> Tensor:
        """The noise of each sample, (B, C, H, W)."""
        return noise(self.teacher.latent_shape, self.order.seed, "x_T", ids, self.device)

    def x_0(self, ids: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample for each: from the cache, or sampled here."""
        if self.cache is not None:
            return sent(self.cache.x_0(ids), self.device)
        return self.sample(ids, x_T_BCHW, cond)

    def at(self, positions: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample at these places of the run, whose noise and condition are given."""
        ids = [self.order.sample_id(position) for position in positions]
        if self.buffer is None or self.cache is not None:
            return self.x_0(ids, x_T_BCHW, cond)

        def make(wanted: Sequence[int]) -> Tensor:
            if list(wanted) == ids:
                return self.sample(ids, x_T_BCHW, cond)
            return self.sample(wanted, self.x_T(wanted), self.conditions(wanted))

        return sent(self.buffer.at(positions, make), self.device)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the teacher computes with beside its weights, and makes of these prompts."""
        return fingerprint(self.teacher, self.order.prompts)

    @torch.no_grad()
    def sample(self, ids: Sequence[int], x_T_BCHW: Tensor, cond: Condition) -> Tensor:
        """The teacher's sample for each, sampled here."""
        generators = [generator(self.order.seed, "teacher", i) for i in ids]
        # As a cache gives them, whatever the teacher computes in.
        return self.teacher.sample(x_T_BCHW, cond, generators).to(x_T_BCHW.dtype)

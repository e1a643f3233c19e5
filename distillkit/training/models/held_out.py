"""Critics and student on pairs that training never sees: who is right, and how far seeds differ.

Legend: B pairs, C latent channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.contracts import Teacher
from distillkit.randomness import generator, noise
from distillkit.training.metrics import logits_key, view_key
from distillkit.training.models.critic import Critic
from distillkit.training.models.panel_pass import PanelPass
from distillkit.values import Condition, Panel

if TYPE_CHECKING:
    from distillkit.training.train_state import TrainState

SEED = 3_000_017
"""Seed of the pairs' prompts and noise, and of how they are shown to critics."""
SEEDS = 4
"""Pairs of one prompt, with noise of their own."""
DRAWS = 16
"""Panels that are drawn in search of all views and noise levels; those that add one judge."""


@dataclass(frozen=True)
class HeldOutPairs:
    """Fixed prompts and noise; the teacher's samples are made once."""

    teacher: Teacher
    prompts: Sequence[str]
    """Each is used `SEEDS` times."""
    device: Any = "cpu"
    batch: int = 16
    """Pairs at once."""

    def __len__(self) -> int:
        return len(self.prompts) * SEEDS

    @cached_property
    def x_T_BCHW(self) -> Tensor:
        """The noise of each pair."""
        return noise(self.teacher.latent_shape, SEED, "x_T", range(len(self))).to(self.device)

    @cached_property
    def cond(self) -> Condition:
        """The condition of each pair: those of one prompt lie beside each other."""
        repeated = [prompt for prompt in self.prompts for _ in range(SEEDS)]
        return self.teacher.encode(repeated).to(self.device)

    @cached_property
    def real_BCHW(self) -> Tensor:
        """The teacher's samples."""
        parts = []
        for rows in self._slices():
            generators = [generator(SEED, "teacher", b) for b in range(rows.start, rows.stop)]
            x_T_BCHW, cond = self.x_T_BCHW[rows], self.cond[rows]
            parts.append(self.teacher.sample(x_T_BCHW, cond, generators))
        return torch.cat(parts)

    @torch.no_grad()
    def measure(self, i: int, state: TrainState) -> dict[str, dict[str, float]]:
        """After iteration `i`, of the weights that train: `held_out`, how often drawn heads rank
        real above fake, by view and t*; `seeds`, the distance between pictures of one prompt.

        All processes must call it, and find the same.
        """
        with state.micro_batch(last=True):
            fake_BCHW = torch.cat([self._fake(state, rows) for rows in self._slices()])
            accuracy: dict[str, float] = {}
            for critic in (each for each in state.critics if each.judges(1)):
                for panel in self._panels(critic, i):
                    with state.heads_on_device([(critic, panel)]):
                        accuracy |= self._accuracy(critic, panel, fake_BCHW)
        distances = {"student": seed_distance(fake_BCHW), "teacher": seed_distance(self.real_BCHW)}
        return {"held_out": accuracy, "seeds": distances}

    def _fake(self, state: TrainState, rows: slice) -> Tensor:
        x_T_BCHW = self.x_T_BCHW[rows]
        return state.student.rollout(x_T_BCHW, self.cond[rows], 1, x_T_BCHW[:0, None])

    def _panels(self, critic: Critic, i: int) -> Iterator[Panel]:
        """Panels as in training, until every view and noise level has been met."""
        met: set[str] = set()
        for n in range(DRAWS):
            with critic.guard("pool")("draw()"):
                panel = critic.pool.draw(len(self), generator(SEED, "panel", i, n, critic.name))
            keys = {view_key(critic.name, judged) for judged in panel.views}
            if not keys <= met:
                yield panel
            met |= keys

    def _accuracy(self, critic: Critic, panel: Panel, fake_BCHW: Tensor) -> dict[str, float]:
        wins: dict[str, list[Tensor]] = {view_key(critic.name, v): [] for v in panel.views}
        for rows in self._slices():
            judged = PanelPass(
                critic=critic,
                panel=panel.of(rows),
                real=lambda rows=rows: self.real_BCHW[rows],  # type: ignore[misc]
                fake=lambda rows=rows: fake_BCHW[rows],  # type: ignore[misc]
                cond=self.cond[rows],
                null=self._null(rows.stop - rows.start),
                positions=range(rows.start, rows.stop),
                seed=SEED,
            )
            for logits in judged.without_graph():
                gap_B = (logits.real_BK - logits.fake_BK).mean(1)
                wins[logits_key(logits, wins.__contains__)].append((gap_B.sign() + 1) / 2)
        return {key: float(torch.cat(found).mean()) for key, found in wins.items() if found}

    def _null(self, count: int) -> Condition | None:
        null = self.teacher.null(count)
        return null.to(self.device) if null is not None else None

    def _slices(self) -> list[slice]:
        starts = range(0, len(self), self.batch)
        return [slice(start, min(start + self.batch, len(self))) for start in starts]


def seed_distance(x_0_BCHW: Tensor) -> float:
    """Root mean square difference of two samples of one prompt, the mean over prompts and pairs.

    A student whose distance falls far below the teacher's draws one picture a prompt.
    """
    x_0_PSX = x_0_BCHW.float().flatten(1).unflatten(0, (-1, SEEDS))
    first, second = torch.triu_indices(SEEDS, SEEDS, offset=1)
    gap_PNX = x_0_PSX[:, first] - x_0_PSX[:, second]
    return float(gap_PNX.square().mean(2).sqrt().mean())

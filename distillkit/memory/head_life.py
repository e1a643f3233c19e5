"""How often a head is trained before it is reset, counted: draws and refreshes without training.

A critic that judges some lengths of roll-outs only has fewer iterations than the run: lives are
counted in its own.

Legend: N heads in the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from distillkit.randomness import generator
from distillkit.training.models.critic import Critic
from distillkit.training.schedule import TrainSchedule
from distillkit.values import HeadStats

ITERATIONS = 500
LONGEST = 5000
"""Iterations that are counted where no head is reset before."""


@dataclass(frozen=True)
class HeadLives:
    """What happened to the heads of a pool."""

    iterations: int
    """In which the critic judged."""
    heads: int
    updates: int
    """Of all heads together."""
    resets: int
    """Lives that ended."""

    def __str__(self) -> str:
        counted = f"counted over {self.iterations} iterations"
        if not self.resets:
            return f"trained {self.updates / self.heads:.1f} times and never reset, {counted}"
        life, updates = self.heads * self.iterations / self.resets, self.updates / self.resets
        return f"a head lives {life:,.0f} iterations and is trained {updates:,.1f} times, {counted}"


def count_judged(critic: Critic, schedule: TrainSchedule) -> int:
    """Iterations of the run in which this critic judges; of a long run, from every n-th."""
    every = 1 + len(schedule) // 5000
    specs = [schedule.spec(i) for i in range(0, len(schedule), every)]
    judged = sum(spec.trains_critic and critic.judges(spec.steps) for spec in specs)
    return round(judged * len(schedule) / max(1, len(specs)))


def count_lives(critic: Critic, batch: int, iterations: int = ITERATIONS) -> HeadLives:
    """The critic's own draws and picks, for `batch` pictures an iteration.

    Nothing is trained, so that a policy that asks for accuracies is told some that are random.

    Counted up to the last reset: where all heads are replaced at once, each of them has ended then.
    """
    heads = len(critic.pool.heads)
    reset_N, updates_N = torch.zeros(2, heads, dtype=torch.int64)
    accuracy_N = torch.rand(heads, generator=generator(0, "plan"), dtype=torch.float64)
    updates = resets = 0
    ended = HeadLives(iterations, heads, 0, 0)
    for i in range(max(iterations, LONGEST)):
        if i >= iterations and resets:
            break
        if i == iterations:
            ended = HeadLives(iterations, heads, updates, 0)
        drawn = list(critic.draw(i, batch).head_ids)
        updates_N[drawn] += 1
        updates += len(drawn)
        learned_N = torch.zeros(heads, dtype=torch.bool)
        learned_N[drawn] = True
        known_N = torch.where(updates_N > 0, accuracy_N, torch.nan)
        picked = critic.pick(i, HeadStats(i + 1 - reset_N, updates_N.clone(), learned_N, known_N))
        reset_N[picked], updates_N[picked] = i + 1, 0
        resets += len(picked)
        if picked:
            ended = HeadLives(i + 1, heads, updates, resets)
    return ended

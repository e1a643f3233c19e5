"""The loop: every iteration, its log, previews, snapshots, checkpoints; signals and resume."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from distillkit.atomic import save_tensors
from distillkit.evaluation.sampling import wear
from distillkit.recipe.schema import Recipe
from distillkit.runs.checkpoint import Checkpoints
from distillkit.runs.folder import RunFolder
from distillkit.samples.cache import SampleCache, training_cache
from distillkit.samples.pairs import Pairs
from distillkit.training import state
from distillkit.training.build import Parts, build_part, make_players, make_timeline
from distillkit.training.distributed import is_sharded
from distillkit.training.divergence import Outcome, Watch
from distillkit.training.schedule import Timeline
from distillkit.training.step import iterate
from distillkit.training.student import Student
from distillkit.training.train_state import Players


class Stopped(Exception):
    """A signal asked the run to stop; the state was saved at `iteration`."""

    def __init__(self, iteration: int) -> None:
        super().__init__(f"stopped after iteration {iteration}; go on with --resume")
        self.iteration = iteration


@dataclass
class Watcher:
    """Who is told what happens: the terminal, or a test. The default says nothing."""

    def cache(self, done: int, total: int) -> None:
        """`done` of `total` teacher samples are in the cache."""

    def resumed(self, iteration: int) -> None:
        """The run goes on after `iteration`."""

    def iteration(self, i: int, total: int, outcome: Outcome, seconds: float) -> None:
        """Iteration `i` is done."""

    def say(self, text: str) -> None:
        """A word to the user."""


@dataclass
class Trainer:
    """A run: its recipe, its folder, its parts on their device."""

    recipe: Recipe
    folder: RunFolder
    parts: Parts
    accelerator: Any
    watcher: Watcher
    preview: Callable[[Players, int], None] | None = None
    """Draws a preview after an iteration, on all processes; None draws none."""

    def __post_init__(self) -> None:
        run = self.recipe.run
        self.players: Players = make_players(self.recipe, self.parts, self.accelerator)
        self.timeline: Timeline = make_timeline(self.recipe, self.parts)
        self.watch = Watch()
        self.checkpoints = Checkpoints(self.folder.checkpoints, run.keep, self.watcher.say)

    def train(self, resume: bool = False) -> Players:
        """All iterations that are left. Raises `Stopped` after a signal, `Diverged` on NaN."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        start = self._resume() if resume else 0
        self._fill_cache()
        with _signals() as asked:
            for i in range(start, len(self.timeline)):
                self._iteration(i)
                due = (i + 1) % self.recipe.run.checkpoint_every == 0
                if due or asked() or i + 1 == len(self.timeline):
                    self._checkpoint(i + 1)
                if asked() and i + 1 < len(self.timeline):
                    raise Stopped(i + 1)
        return self.players

    def _iteration(self, i: int) -> None:
        began = time.perf_counter()
        turn = self.timeline.turn(i)
        if i == self.timeline.start:
            self._snapshot("start")
        outcome = iterate(i, turn, self.players)
        self.watch.see(outcome)
        seconds = time.perf_counter() - began
        main = self.accelerator.is_main_process
        if main:
            self.folder.append_log(_row(i, outcome, seconds))
            self.accelerator.log(_scalars(outcome), step=i)
        self.watcher.iteration(i, len(self.timeline), outcome, seconds)
        if turn.ends_stage:
            self._snapshot(turn.phase)
        if self.preview and (i + 1) % self.recipe.run.preview_every == 0:
            self.preview(self.players, i + 1)

    def alone(self) -> Student:
        """The finished student with its published weights, for this process without the others."""
        network, recipe = self.players.student.network, self.recipe
        if is_sharded(network.module):
            network = build_part(recipe.student, self.parts.teacher)
            network.module.to(self.accelerator.device).requires_grad_(False)
        else:
            network.module = self.accelerator.unwrap_model(network.module)
        student = replace(self.players.student, network=network)
        wear(student, self.folder.snapshot(self.timeline.turn(len(self.timeline) - 1).phase))
        return student

    def _snapshot(self, name: str) -> None:
        weights = state.published_weights(self.players)
        if self.accelerator.is_main_process:
            save_tensors(self.folder.snapshot(name), weights)

    def _checkpoint(self, iteration: int) -> None:
        collected = state.collect(self.players, self.watch)
        if self.accelerator.is_main_process:
            self.checkpoints.save(iteration, collected)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        found = self.checkpoints.latest()
        iteration, saved = found if found else (0, None)
        if saved is not None:
            state.restore(self.players, self.watch, saved)
        if self.accelerator.is_main_process:
            self.folder.rewind_log(iteration)
        self.watcher.resumed(iteration)
        return iteration

    def _fill_cache(self) -> None:
        cache = training_cache(self.recipe, self.players.pairs)
        if cache is not None:
            fill_together(cache, self.players.pairs, self.accelerator, self.watcher.cache)
            self.players.pairs = replace(self.players.pairs, cache=cache)


def fill_together(
    cache: SampleCache, pairs: Pairs, accelerator: Any, tell: Callable[[int, int], None]
) -> None:
    """Make what is missing, each process its share; returns when all of it is there."""
    rank, world = accelerator.process_index, accelerator.num_processes
    missing = cache.missing()
    done = cache.count - sum(map(len, missing))
    accelerator.wait_for_everyone()
    for shard in cache.fill(pairs, missing[rank::world]):
        done = min(done + len(shard) * world, cache.count)
        tell(done, cache.count)
    accelerator.wait_for_everyone()


def _row(i: int, outcome: Outcome, seconds: float) -> dict[str, Any]:
    turn = outcome.turn
    return {
        "iteration": i,
        "phase": turn.phase,
        "steps": turn.steps,
        "student": outcome.student if turn.trains_student else None,
        "critic": outcome.critic if turn.trains_critic else None,
        "accuracy": {name: round(value, 4) for name, value in outcome.accuracy.items()},
        "seconds": round(seconds, 4),
    }


def _scalars(outcome: Outcome) -> dict[str, float]:
    values = {f"accuracy/{name}": value for name, value in outcome.accuracy.items()}
    if outcome.turn.trains_student:
        values["loss/student"] = outcome.student
    if outcome.turn.trains_critic:
        values["loss/critic"] = outcome.critic
    return values


@contextmanager
def _signals() -> Iterator[Callable[[], bool]]:
    """Inside, SIGTERM and Ctrl-C ask for a stop after the iteration; a second one interrupts."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""An iteration's seconds and the bytes at its peak, by the labels that a plan has."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from distillkit.memory.dry_run import DryRun, resident, trainable
from distillkit.memory.labels import CRITICS, label_calls, labelled
from distillkit.memory.plan import Plan
from distillkit.memory.tracker import MemoryTracker
from distillkit.recipe.schema import Recipe
from distillkit.training import step
from distillkit.training.build import Parts
from distillkit.training.train_state import TrainState

MOMENTS, GRADIENTS, OTHER = "moments", "gradients", "other"


class Seconds:
    """Time between two changes of the label counts under the first; by events on CUDA.

    Work is queued there and runs later, in the same order as the events, so no part has to wait.
    """

    def __init__(self, device: str) -> None:
        self.cuda, self._label = device == "cuda", OTHER
        self._marks: list[tuple[str, Any]] = []

    @contextmanager
    def label(self, name: str) -> Iterator[None]:
        """Inside, time counts under `name`."""
        before, self._label = self._label, name
        self._mark(before)
        try:
            yield
        finally:
            self._label = before
            self._mark(name)

    def _mark(self, ended: str) -> None:
        now: Any = time.perf_counter()
        if self.cuda:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        self._marks.append((ended, now))

    def of(self, call: Callable[[], Any]) -> dict[str, float]:
        """Seconds of the call, by label."""
        self._marks = []
        self._mark(OTHER)
        call()
        self._mark(OTHER)
        if self.cuda:
            torch.cuda.synchronize()
        found: dict[str, float] = defaultdict(float)
        for (_, began), (name, ended) in zip(self._marks, self._marks[1:], strict=False):
            found[name] += began.elapsed_time(ended) / 1000 if self.cuda else ended - began
        return dict(found)


class Switch:
    """Labels of which one reader at a time takes note, so that calls are wrapped once."""

    def __init__(self) -> None:
        self.reader: Any = None

    @contextmanager
    def label(self, name: str) -> Iterator[None]:
        """Inside, what the reader counts is under `name`."""
        if self.reader is None:
            yield
            return
        with self.reader.label(name):
            yield


@contextmanager
def labelled_step(parts: Parts, state: TrainState) -> Iterator[Switch]:
    """Inside, a step's calls have the labels that a plan has, and some that it does not count."""
    switch, saved = Switch(), (step.critic_gradients, step.student_gradients)
    label_calls(parts, state, switch)
    for name in ("critic_gradients", "student_gradients"):
        labelled(step, name, CRITICS, switch)
    for name in ("step_critics", "step_student"):
        labelled(state, name, "optimizers, EMA", switch)
    labelled(state, "refresh_pools", "refresh", switch)
    try:
        yield switch
    finally:
        step.critic_gradients, step.student_gradients = saved


def measured_peak(
    recipe: Recipe, parts: Parts, state: TrainState, switch: Switch, call: Callable[[], Any]
) -> dict[str, int]:
    """Bytes at the moment of a call when most were alive, by label."""
    tracker = MemoryTracker(state.accelerator.device.type)
    known: Any = None  # a plan's schedule, of which nothing is read here
    dry = DryRun(parts, state, known, [], recipe.run.offload_ema)
    for kind, tensors in resident(dry, recipe.run.offload_heads).items():
        tracker.own(kind, tensors)
    # The moments of offloaded heads wait with them; where the device is a CPU too, by name.
    critic_optimizer = None if recipe.run.offload_heads else state.critic_optimizer
    optimizers = [state.student_optimizer, critic_optimizer]
    values = [v for o in optimizers if o is not None for s in o.state.values() for v in s.values()]
    tracker.own(MOMENTS, [v for v in values if isinstance(v, torch.Tensor)])
    hooks = [
        p.register_post_accumulate_grad_hook(
            lambda p: tracker.own(GRADIENTS, [p.grad] if p.grad is not None else [])
        )
        for p in trainable(dry)
    ]
    switch.reader = tracker
    tracker.restart()
    with tracker:
        call()
    switch.reader = None
    for hook in hooks:
        hook.remove()
    return {name: size for name, size in tracker.peak.items() if size}


def planned_peak(plan: Plan) -> dict[str, int]:
    """The plan's bytes at its peak, by label."""
    found = {part.name: part.weights for part in plan.parts} | dict(plan.activations)
    found[GRADIENTS] = plan.dry.peak.get(GRADIENTS, 0)
    found[MOMENTS] = sum(part.optimizer for part in plan.parts)
    return {name: size for name, size in found.items() if size}

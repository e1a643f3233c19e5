"""An iteration's seconds and peak bytes, by the labels that a plan has; and tables of them."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from rich.table import Table

from distillkit.memory.dry_run import DryRun, resident, trainable
from distillkit.memory.labels import CRITICS, label_calls, labelled
from distillkit.memory.plan import GIB, Plan
from distillkit.memory.tracker import MemoryTracker
from distillkit.recipe.schema import Recipe
from distillkit.training import step
from distillkit.training.build import Parts
from distillkit.training.train_state import TrainState

BESIDE = "weights beside"
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


def matmul_flops(device: str, side: int) -> float:
    """FLOP/s of a square bf16 matrix product: the peak that this machine reaches."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = 0.0
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 5 * 2 * side**3 / (time.perf_counter() - began))
    return best


def beside(plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    """What a plan adds to a row of measured figures; the rest of a peak are gradients and maps."""
    measured, flops = row["measured"], sum(plan.flops.values())
    planned = {
        "weights": sum(part.weights for part in plan.parts) + plan.activations.get(BESIDE, 0),
        "moments": sum(part.optimizer for part in plan.parts),
        "peak": plan.peak,
    }
    return {
        "planned": planned,
        "ratio": planned["peak"] / (measured["peak"] or math.nan),
        "peak_by_part": row["peak_by_part"] | {"planned": planned_peak(plan)},
        "flops": flops,
        "flops_by_part": dict(plan.flops),
        "flops_per_second": flops / row["seconds"],
    }


def show(result: dict[str, Any]) -> Table:
    """A row a variant."""
    table = Table(title=f"{result['device']}: bf16 peak {result['matmul'] / 1e12:.1f} TFLOP/s")
    table.add_column("variant")
    columns = ("weights", "moments", "gradients, activations", "peak", "plan/measured")
    for column in (*columns, "s/iteration", "pictures/s", "of bf16 peak"):
        table.add_column(column, justify="right")
    for name, row in result["variants"].items():
        if "error" in row:
            table.add_row(name, row["error"])
            continue
        sizes = [pair(row.get("planned"), row["measured"], k) for k in ("weights", "moments")]
        sizes += [pair(rest(row.get("planned")), rest(row["measured"]), "rest")]
        sizes += [pair(row.get("planned"), row["measured"], "peak")]
        speed = [f"{row['seconds']:.2f}", f"{row['pictures_per_second']:.2f}"]
        if "planned" in row:
            speed += [f"{row['flops_per_second'] / result['matmul']:.0%}"]
        table.add_row(name, *sizes, f"{row.get('ratio', math.nan):.3f}", *speed)
    table.caption = "GiB: planned / measured"
    return table


def rest(sizes: dict[str, int] | None) -> dict[str, int]:
    """Of a peak, what are neither weights nor moments: gradients and activations."""
    return {"rest": sizes["peak"] - sizes["weights"] - sizes["moments"]} if sizes else {}


def pair(planned: dict[str, int] | None, measured: dict[str, int], kind: str) -> str:
    """GiB, the plan's first; a dash where no plan was made."""
    before = f"{planned[kind] / GIB:.2f}" if planned else "-"
    return f"{before} / {measured[kind] / GIB:.2f}"


def show_parts(result: dict[str, Any]) -> Iterator[Table]:
    """Seconds of an iteration, and GiB at its peak, a row a part and a column a variant."""
    done = {name: row for name, row in result["variants"].items() if "error" not in row}
    seconds, sizes = Table(title="seconds of an iteration"), Table(title="GiB at its peak")
    for table in (seconds, sizes):
        table.add_column("part")
        for name in done:
            table.add_column(name, justify="right")
    for part in merged([row["seconds_by_part"] for row in done.values()]):
        took = [row["seconds_by_part"].get(part, 0) for row in done.values()]
        seconds.add_row(part, *(f"{each:.3f}" for each in took))
    peaks = [row["peak_by_part"] for row in done.values()]
    if not any(each["measured"] for each in peaks):
        return iter((seconds,))
    for part in merged([each[kind] for each in peaks for kind in each]):
        found = [(p.get("planned", {}).get(part, 0), p["measured"].get(part, 0)) for p in peaks]
        sizes.add_row(part, *(f"{a / GIB:.2f} / {b / GIB:.2f}" for a, b in found))
    sizes.caption = "planned / measured; copies of 16 bits are measured with what makes them"
    return iter((seconds, sizes))


def merged(found: Sequence[dict[str, Any]]) -> list[str]:
    """All labels, in the order in which they come first."""
    return list(dict.fromkeys(name for each in found for name in each))

"""What one iteration of NitroFusion costs, counted and timed, part by part.

    python benchmarks/iteration.py recipes/nitro_shapes.yaml [--set a.b=c] [--out FILE.json]

Counts FLOPs (torch's FlopCounterMode) of the whole iteration and of its parts, and sets them beside
the sum that the method needs: one student forward and backward; one backbone pass on the real
pictures; one forward and one input-backward on the fake; the drawn heads; and the networks that
losses run beside them, as a fake score and the teacher's. Then times the parts. Ratios are what
counts; seconds are this machine's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from distillkit.recipe.load import load_recipe
from distillkit.runs.folder import RunFolder
from distillkit.training import step
from distillkit.training.build import build_parts
from distillkit.training.callbacks import Callback
from distillkit.training.schedule import IterationSpec
from distillkit.training.step import train_step
from distillkit.training.trainer import Trainer


def counted(call: Callable[[], Any]) -> int:
    """FLOPs of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


class Tap:
    """Counts FLOPs and seconds of every call that goes through it, and sums them by name."""

    def __init__(self) -> None:
        self.flops: dict[str, int] = defaultdict(int)
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts = False

    def wrap(self, owner: Any, method: str, name: str, learning: str = "") -> None:
        """Replace a bound method by one that is measured; calls that record gradients are
        `learning`'s where it is given."""
        inner, asked = getattr(owner, method), name

        def measured(*args: Any, **kwargs: Any) -> Any:
            name = learning if learning and torch.is_grad_enabled() else asked
            if self.counts:
                with FlopCounterMode(display=False) as counter:
                    result = inner(*args, **kwargs)
                self.flops[name] += counter.get_total_flops()
                return result
            began = time.perf_counter()
            result = inner(*args, **kwargs)
            self.seconds[name] += time.perf_counter() - began
            return result

        setattr(owner, method, measured)


class Noise:
    """Stands in for the cache of samples."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def x_0(self, ids: range) -> torch.Tensor:
        return torch.randn(len(ids), *self.shape)

    def conditions(self, ids: range) -> None:
        return None


def tapped(trainer: Trainer) -> Tap:
    """Measure the calls of networks, the backward passes and the optimizers."""
    tap, state = Tap(), trainer.state
    tap.wrap(state.student.network.module, "forward", "student forward")
    for critic in state.critics:
        tap.wrap(critic.backbone, "features", "backbone forward")
        for head in critic.pool.heads:
            tap.wrap(head, "forward", "heads forward")
    tap.wrap(trainer.parts.teacher, "encode", "text encoders")
    if owned := trainer.parts.loss_modules:
        for module in (*owned, trainer.parts.teacher.denoiser.module):
            tap.wrap(module, "forward", SCORES, LEARNING)
    tap.wrap(state, "backward_critics", "backward of critics")
    # Each loss's gradient at x_0-hat, then one pass of their sum through the student.
    tap.wrap(state, "grad", "backward to x_0-hat")
    tap.wrap(state, "backward_student", STUDENT)
    tap.wrap(state.student_optimizer, "step", "optimizers")
    tap.wrap(state.critic_optimizer, "step", "optimizers")
    if state.ema is not None:
        tap.wrap(state.ema, "update", "EMA")
    return tap


CALL_PAIRS = "only time N pairs of iterations: heads called on real and fake apart, and together"
STUDENT = "backward of student"
SCORES, LEARNING = "losses' networks", "losses' networks, learning"
NETWORK = (
    *("student forward", "backbone forward", "heads forward", "text encoders", SCORES, LEARNING),
    *("backward of critics", "backward to x_0-hat", STUDENT),
)


def needed(parts: dict[str, int], alternates: bool) -> dict[str, int]:
    """The sum that the method needs, from measured forward passes.

    A backward pass costs twice its forward where weights learn, once where only the input's
    gradient is asked for. The heads run forward on real and fake, backward through both for the
    critics, and input-backward through the fake for the student. With `alternates` they run forward
    once more, with their new weights.
    """
    student, both_backbones, heads = (
        parts[name] for name in ("student forward", "backbone forward", "heads forward")
    )
    head_passes = 4 if alternates else 2
    one_backbone, one_head_pass = both_backbones // 2, heads // head_passes
    return {
        "student: forward, backward": 3 * student,
        "backbone on real: forward": one_backbone,
        "backbone on fake: forward, input backward": 2 * one_backbone,
        "heads: critic and student": (head_passes + 4 + 1) * one_head_pass,
        "text encoders": parts["text encoders"],
        "losses' networks: forward": parts.get(SCORES, 0),
        "losses' networks: forward, backward": 3 * parts.get(LEARNING, 0),
    }


def first_one_step_iteration(trainer: Trainer) -> tuple[int, IterationSpec]:
    """The first iteration in which both players train, on a one-step roll-out.

    Where a phase begins there, the student's moments are new: one iteration's cost, not of each.
    """
    for i in range(trainer.schedule.start, len(trainer.schedule)):
        spec = trainer.schedule.spec(i)
        if spec.trains_student and spec.trains_critic and spec.steps == 1:
            return i, replace(spec, resets_optimizer=False)
    raise SystemExit("this recipe has no iteration in which both players train on one step")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("recipe")
    options.add_argument("--set", action="append", default=[], metavar="A.B=C")
    options.add_argument("--repeats", type=int, default=10)
    options.add_argument("--out", type=Path)
    options.add_argument("--call-pairs", type=int, default=0, metavar="N", help=CALL_PAIRS)
    given = options.parse_args()
    recipe = load_recipe(given.recipe, given.set).recipe
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    with tempfile.TemporaryDirectory() as folder:
        parts = build_parts(recipe)
        trainer = Trainer(recipe, RunFolder(Path(folder)), parts, Accelerator(), Callback())
        if given.call_pairs:
            compare_calls(trainer, given.call_pairs)
            return
        result = measure(trainer, given.repeats)
    show(result)
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def compare_calls(trainer: Trainer, pairs: int) -> None:
    """CPU seconds of an iteration in which a head sees real and fake in one call, over those of one
    with two calls; one after the other, so that whatever else the machine does meets both."""
    i, spec = first_one_step_iteration(trainer)
    state = trainer.state
    state.samples = replace(state.samples, cache=Noise(trainer.parts.teacher.latent_shape))
    make, ratios = step.make_batch, []

    def made(together: bool, *args: Any) -> Any:
        return replace(make(*args), critics_alone=together)

    for _ in range(pairs + 1):
        seconds = []
        for together in (False, True):
            step.make_batch = partial(made, together)  # type: ignore[assignment]
            began = time.process_time()
            train_step(i, spec, state)
            seconds.append(time.process_time() - began)
        ratios.append(seconds[1] / seconds[0])
    low, middle, high = quantiles(ratios[1:], n=4)  # the first warms up
    print(f"One call: {middle:.3f} of the CPU seconds of two; quartiles {low:.3f}, {high:.3f}.")


def measure(trainer: Trainer, repeats: int) -> dict[str, Any]:
    """FLOPs of one iteration, then seconds of `repeats` of them after two for warming up."""
    i, spec = first_one_step_iteration(trainer)
    state = trainer.state
    # The teacher's samples come from the cache in a run; their cost is the cache's.
    state.samples = replace(state.samples, cache=Noise(trainer.parts.teacher.latent_shape))
    total = counted(lambda: train_step(i, spec, state))
    tap = tapped(trainer)
    tap.counts = True
    train_step(i, spec, state)
    tap.counts = False
    for _ in range(2):
        train_step(i, spec, state)
    tap.seconds.clear()
    began = time.perf_counter()
    for _ in range(repeats):
        train_step(i, spec, state)
    wall = (time.perf_counter() - began) / repeats
    seconds = {name: value / repeats for name, value in tap.seconds.items()}
    for measured in (seconds, tap.flops):  # the one lies within the other
        measured[STUDENT] -= measured["backward to x_0-hat"]
    need = needed(tap.flops, spec.alternates)
    return {
        "flops": total,
        "flops_by_call": dict(tap.flops),
        "flops_needed": need,
        "flops_ratio": total / sum(need.values()),
        "seconds": wall,
        "seconds_by_call": seconds,
        "outside_share": 1 - sum(seconds.get(name, 0.0) for name in NETWORK) / wall,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def show(result: dict[str, Any]) -> None:
    """Two tables and two sentences."""
    console = Console()
    counted = {name: f"{value / 1e9:.2f}" for name, value in result["flops_by_call"].items()}
    flops = Table("part", "GFLOP", title="What the method needs")
    for name, value in result["flops_needed"].items():
        if value == 0:
            continue
        flops.add_row(name, f"{value / 1e9:.2f}")
    flops.add_row("sum", f"{sum(result['flops_needed'].values()) / 1e9:.2f}")
    flops.add_row("counted in one iteration", f"{result['flops'] / 1e9:.2f}")
    console.print(flops)
    times = Table("part", "GFLOP", "ms", "share", title="Where the time goes")
    for name, value in result["seconds_by_call"].items():
        share = f"{value / result['seconds']:.1%}"
        times.add_row(name, counted.get(name, ""), f"{value * 1e3:.1f}", share)
    times.add_row("whole iteration", "", f"{result['seconds'] * 1e3:.1f}", "100 %")
    console.print(times)
    console.print(f"Counted FLOPs are {result['flops_ratio']:.3f} x what the method needs.")
    console.print(f"Outside of network calls: {result['outside_share']:.1%} of the iteration.")


if __name__ == "__main__":
    main()

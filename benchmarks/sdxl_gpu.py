"""NitroFusion's iteration on SDXL at its true size, with random weights: memory and speed.

    python benchmarks/sdxl_gpu.py [--out sdxl_gpu.json] [--within SECONDS]

Where a GPU's time is short: `--measure-only`, and then, on any machine, `--plan-only`.

On one GPU: for the recipe as it is and with each switch on or off: peak memory by part beside what
`distillkit plan` says, seconds an iteration by part, and the share of the bf16 peak that this card
reaches in a large matrix product. `--tiny` takes a small model of the same classes, on a CPU too.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import time
import traceback
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from gpu_parts import (
    Seconds,
    beside,
    labelled_step,
    matmul_flops,
    measured_peak,
    show,
    show_parts,
)

from distillkit.cli.terminal.console import console
from distillkit.memory.plan import make_plan
from distillkit.recipe.load import load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.training.build import (
    CriticParts,
    Parts,
    build_part,
    freeze,
    make_schedule,
    make_train_state,
)
from distillkit.training.schedule import WeightedLoss
from distillkit.training.step import train_step
from distillkit.training.train_state import TrainState

RECIPE = Path(__file__).parents[1] / "recipes" / "nitro_vibrant.yaml"
ITERATION = ["run.batch=5", "run.accumulate=2"]
"""The paper's batch; two micro-batches, so that gradients are there while a graph is."""
OFF = [
    "run.offload_heads=false",
    "backbone.gradient_checkpointing=false",
    "student.gradient_checkpointing=false",
    "teacher.offload=[]",
]
LORA = ["student.train=lora", "teacher.offload=[text_encoders,vae]"]
COMPILED = ["run.compile=inductor"]
VARIANTS: dict[str, list[str]] = {
    "the recipe": [],
    "LoRA": LORA,
    "LoRA, 4 bits": [*LORA, "teacher.bits=4"],
    "LoRA, 8 bits": [*LORA, "teacher.bits=8"],
    "moments of 8 bits": ["optim.student.bits=8"],
    "average in main memory": ["run.offload_ema=true"],
    "samples used 4 times": ["samples.uses=4", "samples.buffer=2"],
    "backbone not checkpointed": ["backbone.gradient_checkpointing=false"],
    "without its switches": OFF,
    "10 pictures at once": ["run.batch=10", "run.accumulate=1"],
    "LoRA, compiled": [*LORA, *COMPILED],
    "compiled": COMPILED,
}
"""What is set on top; those first that say most."""


def tiny() -> list[str]:
    """The shapes world's sizes, for a CPU."""
    from distillkit_shapes.teacher import TEACHER

    fields = {"teacher.model": TEACHER, "teacher.dtype": "float32", "run.precision": "no"}
    return [f"{name}={value}" for name, value in fields.items()] + ["run.batch=2", "pool.width=16"]


def random_parts(recipe: Recipe, device: str) -> Parts:
    """The parts of the recipe at their true sizes, with random weights."""
    teacher: Any = recipe.teacher.outline(device)
    freeze(teacher.modules())
    for module in teacher.offloaded():  # as when it is loaded: it goes back to where it came from
        module.to("cpu")
    network = build_part(recipe.student, teacher, outline=True)
    parts = Parts(teacher, network, ["a lighthouse at dawn", "a red fox in the snow"])
    for name, config in recipe.all_critics().items():
        backbone = build_part(config.backbone, teacher, outline=True)
        pool = build_part(config.pool, backbone.channels, 0)
        refresh = build_part(config.refresh) if config.refresh else None
        parts.critics.append(CriticParts(name, backbone, pool, refresh, {}, config.steps))
    parts.losses = [
        WeightedLoss(c.name(), build_part(c, teacher, network), c.weight, c.weight)
        for c in recipe.losses
    ]
    return parts


class Memory:
    """Bytes of tensors on the device: torch's own count on CUDA, a meter's elsewhere."""

    def __init__(self, device: str) -> None:
        self.cuda = device == "cuda"

    def now(self, state: TrainState) -> int:
        """Bytes of what is there between two iterations."""
        if self.cuda:
            torch.cuda.synchronize()
            return torch.cuda.memory_allocated()
        return sum({t.untyped_storage()._cdata: t.nbytes for t in _held(state)}.values())

    def peak(self, call: Callable[[], Any], metered: int) -> int:
        """Most bytes at a moment of the call; elsewhere than on CUDA, the metered ones."""
        if not self.cuda:
            return metered
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()


def _held(state: TrainState) -> list[torch.Tensor]:
    """What would be on a device between two iterations, that is without what waits."""
    teacher: Any = state.samples.teacher
    offloaded = list(teacher.offloaded())
    modules = [m for m in teacher.modules() if m not in offloaded]
    modules += [state.student.network.module]
    modules += [m for critic in state.critics for m in critic.backbone.modules()]
    optimizers = [state.student_optimizer]
    if not state.offload_heads and state.critic_optimizer is not None:
        modules += [critic.pool.heads for critic in state.critics]
        optimizers.append(state.critic_optimizer)
    states = [t for o in optimizers for s in o.state.values() for t in s.values()]
    held = [t for m in modules for t in (*m.parameters(), *m.buffers())]
    return held + [t for t in states if isinstance(t, torch.Tensor)]


def settle(state: TrainState) -> None:
    """Moments for every head, as when each has been drawn once; a step without gradient."""
    assert state.critic_optimizer is not None
    for critic in state.critics:
        for p in critic.pool.heads.parameters():
            p.grad = torch.zeros_like(p)
    state.critic_optimizer.step()
    state.critic_optimizer.zero_grad(set_to_none=True)


def measure(recipe: Recipe, device: str, repeats: int, peaks: bool) -> dict[str, Any]:
    """Build, run two iterations for warming up, then some for their time, one each for their peaks.

    `peaks`: by part too, for which every operation is looked at, so that takes longest.
    Where samples are used several times, as many iterations are timed as make it a whole mean.
    """
    began = time.perf_counter()
    accelerator = Accelerator(mixed_precision=recipe.run.precision, cpu=device == "cpu")
    parts = random_parts(recipe, device)
    state = make_train_state(recipe, parts, accelerator)
    schedule, memory = make_schedule(recipe, parts), Memory(device)
    numbers = itertools.count(schedule.first_joint_iteration())

    def iteration() -> None:
        i = next(numbers)
        train_step(i, schedule.spec(i), state)

    weights = memory.now(state)
    with labelled_step(parts, state) as switch:
        iteration()
        settle(state)  # after the first joint iteration, in which moments begin anew
        iteration()
        moments = memory.now(state) - weights
        built = time.perf_counter() - began
        block = recipe.samples.uses * recipe.samples.buffer if recipe.samples.uses > 1 else 1
        times = -(-repeats // block) * block
        switch.reader = Seconds(device)
        seconds = switch.reader.of(lambda: [iteration() for _ in range(times)])
        switch.reader = None
        by_part = {}
        if peaks and not recipe.run.compile:
            by_part = measured_peak(recipe, parts, state, switch, iteration)
        peak = memory.peak(iteration, sum(by_part.values()))
    whole = sum(seconds.values()) / times
    return {
        "built": built,
        "seconds": whole,
        "seconds_by_part": {name: each / times for name, each in seconds.items()},
        "pictures_per_second": recipe.run.batch * recipe.run.accumulate / whole,
        "measured": {"weights": weights, "moments": moments, "peak": peak},
        "peak_by_part": {"measured": by_part},
    }


def run(given: argparse.Namespace, sets: Sequence[str], device: str) -> dict[str, Any]:
    """All variants, one after the other; one that fails is a row that says how."""
    began, only = time.monotonic(), given.only
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    result: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "matmul": matmul_flops(device, 8192 if device == "cuda" else 256),
        "sets": list(sets),
        "variants": {},
    }
    for variant, more in VARIANTS.items():
        if (only and variant not in only) or time.monotonic() - began > given.within:
            continue
        result["variants"][variant] = row(variant_recipe(variant, sets), more, given, device)
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


def variant_recipe(variant: str, sets: Sequence[str]) -> Recipe:
    """The recipe of one row."""
    return load_recipe(RECIPE, [*ITERATION, *sets, *VARIANTS[variant]]).recipe


def row(
    recipe: Recipe, more: Sequence[str], given: argparse.Namespace, device: str
) -> dict[str, Any]:
    """What was measured of one variant, or why it was not."""
    if any("bits=" in text for text in more) and find_spec("bitsandbytes") is None:
        return {"error": "needs bitsandbytes"}
    try:
        return measure(recipe, device, given.repeats, given.peaks)
    except Exception as error:  # the other rows are worth having
        # Within a part's own method it is told as that part's.
        if isinstance(error.__cause__ or error, torch.OutOfMemoryError):
            return {"error": "out of memory"}
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def add_plans(result: dict[str, Any]) -> None:
    """Beside what was measured, what `distillkit plan` says; needs no GPU."""
    for variant, found in result["variants"].items():
        if "error" not in found:
            plan = make_plan(variant_recipe(variant, result["sets"]))
            result["variants"][variant] = found | beside(plan, found)


def main(words: Sequence[str] | None = None) -> None:
    """The command."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tiny", action="store_true", help="a small model; works on a CPU")
    options.add_argument("--set", action="append", default=[], metavar="A.B=C")
    options.add_argument("--only", action="append", default=[], choices=list(VARIANTS))
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument(
        "--within", type=float, default=float("inf"), help="seconds after which no variant begins"
    )
    options.add_argument("--no-peaks", dest="peaks", action="store_false", help="no peak by part")
    half = options.add_mutually_exclusive_group()
    half.add_argument("--measure-only", action="store_true", help="no plan; --plan-only adds it")
    half.add_argument("--plan-only", action="store_true", help="plans for what --out holds")
    options.add_argument("--out", type=Path, default=Path("sdxl_gpu.json"))
    given = options.parse_args(words)
    if given.plan_only:
        result = json.loads(given.out.read_text())
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu" and not given.tiny:
            raise SystemExit(
                "SDXL at its true size needs a GPU; --tiny takes a small model on a CPU"
            )
        result = run(given, [*(tiny() if given.tiny else []), *given.set], device)
    if not given.measure_only:
        add_plans(result)
        given.out.write_text(json.dumps(result, indent=1) + "\n")
    for table in (show(result), *show_parts(result)):
        console().print(table)
    if any("error" in found for found in result["variants"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

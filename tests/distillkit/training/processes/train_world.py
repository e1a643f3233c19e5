"""Trains the 8x8 world, and saves what each rank ended with: here, or in processes of their own.

python -m tests.distillkit.training.processes.train_world JOB... with jobs such as "FOLDER --batch 8
--stages 3,2 --resume". Processes that have been started do one job after the other: to start them
takes longer than to train.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from distillkit import api
from distillkit.configs import RefreshConfig
from distillkit.errors import UserError
from distillkit.examples.pool import ExamplePool, ExamplePoolConfig
from distillkit.recipe.schema import (
    AdamWConfig,
    OptimConfig,
    Recipe,
    RunConfig,
    SamplesConfig,
    StudentAdamWConfig,
    WarmupConfig,
)
from distillkit.training.callbacks import Callback, Stopped
from distillkit.training.metrics import StepMetrics
from distillkit.training.models.distributed import is_sharded
from distillkit.training.trainer import Trainer
from tests.distillkit.world import PlainNetworkTeacherConfig, everything, world_recipe


class LastState(Callback):
    """Keeps the state after the last iteration: training ends the process group, without which
    shards can't be gathered."""

    trainer: Trainer
    tensors: dict[str, Tensor]

    def __init__(self, told: int | None) -> None:
        self.told = told
        """The process that alone gets a signal, after its second iteration."""

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        if i == 1 and self.told == RANK:
            os.kill(os.getpid(), signal.SIGTERM)
        if i + 1 == total:
            self.tensors = everything(self.trainer)


RANK = int(os.environ.get("RANK", "0"))


class PicksByRank(RefreshConfig):
    """Each process resets another head, which no policy may do."""

    type: Literal["by-rank"] = "by-rank"

    def build(self) -> Any:
        class Policy:
            def pick(self, *args: Any) -> list[int]:
                return [RANK]

        return Policy()


class DrawsByRank(ExamplePoolConfig):
    """Each process draws other heads."""

    def build(self, channels: tuple[int, ...], seed: int) -> ExamplePool:
        class Pool(ExamplePool):
            def draw(self, batch: int, generator: torch.Generator) -> Any:
                return super().draw(batch, generator.manual_seed(RANK + 5))

        return Pool(channels, 8, seed)


class ResetsByRank(ExamplePoolConfig):
    """Each process gives a head that is reset other weights."""

    def build(self, channels: tuple[int, ...], seed: int) -> ExamplePool:
        class Pool(ExamplePool):
            def reset(self, heads: Any, generator: torch.Generator) -> None:
                super().reset(heads, generator.manual_seed(RANK))

        return Pool(channels, 2, seed)


DISAGREE: dict[str, dict[str, Any]] = {
    "": {},
    "pick": {"refresh": PicksByRank()},
    "draw": {"pool": DrawsByRank()},
    "reset": {"pool": ResetsByRank()},
}
"""Parts that do not do the same on every process."""


def options_of(job: str) -> argparse.Namespace:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--accumulate", type=int, default=1)
    options.add_argument("--stages", default="3,2", help="iterations of 1 and of 4 steps")
    options.add_argument("--every", type=int, default=500, help="iterations between checkpoints")
    options.add_argument("--parallel", default="ddp")
    options.add_argument("--draw", default="one", help="of the pool: one, all, per-picture")
    options.add_argument("--updates", default="simultaneous")
    options.add_argument("--uses", type=int, default=1, help="of the teacher's samples")
    options.add_argument("--compile", help="backend of torch.compile")
    options.add_argument("--resume", action="store_true")
    options.add_argument("--told", type=int, help="the process that is told to stop")
    options.add_argument("--disagree", default="", choices=list(DISAGREE))
    return options.parse_args(shlex.split(job))


def recipe_of(given: argparse.Namespace) -> Recipe:
    one, four = map(int, given.stages.split(","))
    smooth = {"betas": (0.9, 0.99)}
    return world_recipe(
        run=RunConfig(
            batch=given.batch,
            accumulate=given.accumulate,
            checkpoint_every=given.every,
            parallel=given.parallel,
            compile=given.compile,
        ),
        optim=OptimConfig(
            student=StudentAdamWConfig(lr=1e-3, **smooth),
            critic=AdamWConfig(lr=1e-3, **smooth),
            updates=given.updates,
        ),
        teacher=PlainNetworkTeacherConfig(),
        warmup=WarmupConfig(student=1, losses=[{"type": "regression"}]),
        samples=SamplesConfig(uses=given.uses, buffer=2),
        losses=[{"type": "least-squares"}],  # hinge leaves biases a gradient of rounding alone
        refinement={"type": "bottom-up", "stages": {1: one, 4: four}},
        **{"pool": world_recipe().pool.model_copy(update={"draw": given.draw})}
        | DISAGREE[given.disagree],
    )


def train(job: str, accelerator: Accelerator) -> None:
    """Train as the job says; what a user would be told is printed behind the job's folder."""
    given = options_of(job)
    last = LastState(given.told)
    trainer = last.trainer = api.prepare(recipe_of(given), given.folder, last, accelerator)
    said = f"{given.folder.name} rank {RANK}"
    try:
        trainer.train(given.resume)
    except (Stopped, UserError) as ended:
        print(f"{said} stopped: {ended}", flush=True)
        return
    save_file(last.tensors, given.folder / f"rank{RANK}.safetensors")
    network = trainer.state.student.network.module
    if is_sharded(network):
        held = sum(p.to_local().numel() for p in network.parameters())
        total = sum(p.numel() for p in network.parameters())
        print(f"{said} holds {held / total:.2f} of the student")
    print(f"{said} of {accelerator.num_processes} is done", flush=True)


def main() -> None:
    torch.set_num_threads(1)  # of which the last bits of sums depend
    accelerator = Accelerator(cpu=True)
    for job in sys.argv[1:]:
        train(job, accelerator)
        accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()

"""Run in processes of its own: trains the 8x8 world, and saves what each rank ended with.

python -m tests.distillkit.training.processes.train_world FOLDER --batch 8 [--stages 3,2] [--resume]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor

from distillkit import api
from distillkit.recipe.schema import AdamWConfig, OptimConfig, RunConfig, StudentAdamWConfig
from distillkit.training.callbacks import Callback
from distillkit.training.metrics import StepMetrics
from distillkit.training.models.distributed import is_sharded
from distillkit.training.trainer import Trainer
from tests.distillkit.world import everything, world_recipe


class LastState(Callback):
    """Keeps the state after the last iteration: training ends the process group, without which
    shards can't be gathered."""

    trainer: Trainer
    tensors: dict[str, Tensor]

    def on_iteration(self, i: int, total: int, metrics: StepMetrics, seconds: float) -> None:
        if i + 1 == total:
            self.tensors = everything(self.trainer)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--accumulate", type=int, default=1)
    options.add_argument("--stages", default="3,2", help="iterations of 1 and of 4 steps")
    options.add_argument("--every", type=int, default=500, help="iterations between checkpoints")
    options.add_argument("--parallel", default="ddp")
    options.add_argument("--precision", default="no")
    options.add_argument("--resume", action="store_true")
    given = options.parse_args()
    one, four = map(int, given.stages.split(","))
    smooth = {"betas": (0.9, 0.99)}
    recipe = world_recipe(
        run=RunConfig(
            batch=given.batch,
            accumulate=given.accumulate,
            checkpoint_every=given.every,
            parallel=given.parallel,
            precision=given.precision,
        ),
        optim=OptimConfig(
            student=StudentAdamWConfig(lr=1e-3, **smooth), critic=AdamWConfig(lr=1e-3, **smooth)
        ),
        losses=[{"type": "least-squares"}],  # hinge leaves biases a gradient of rounding alone
        refinement={"type": "bottom-up", "stages": {1: one, 4: four}},
    )
    accelerator = Accelerator(cpu=True, mixed_precision=given.precision)
    last = LastState()
    trainer = last.trainer = api.prepare(recipe, given.folder, last, accelerator)
    trainer.train(given.resume)
    save_file(last.tensors, given.folder / f"rank{accelerator.process_index}.safetensors")
    print("ranks:", accelerator.num_processes)
    network = trainer.state.student.network.module
    if is_sharded(network):
        held = sum(p.to_local().numel() for p in network.parameters())
        print(f"holds {held / sum(p.numel() for p in network.parameters()):.2f} of the student")


if __name__ == "__main__":
    main()

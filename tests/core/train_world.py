"""Run in processes of its own: trains the 8x8 world, and saves what each rank ended with.

python -m tests.core.train_world FOLDER --batch 8 [--stages 3,2] [--resume]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file

from distillkit.recipe.schema import AdamWConfig, OptimConfig, RunConfig, StudentAdamWConfig
from distillkit.runs.folder import RunFolder
from distillkit.training import state
from distillkit.training.build import build_parts
from distillkit.training.distributed import is_sharded
from distillkit.training.trainer import Callback, Trainer
from tests.core.world import world_recipe


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
    parts = build_parts(recipe)
    trainer = Trainer(recipe, RunFolder(given.folder), parts, accelerator, Callback())
    trainer.train(given.resume)
    ended = state.collect(trainer.state, trainer.monitor)
    flat = {f"{part}.{k}": v.detach().clone() for part, ts in ended.items() for k, v in ts.items()}
    save_file(flat, given.folder / f"rank{accelerator.process_index}.safetensors")
    print("ranks:", accelerator.num_processes)
    network = trainer.state.student.network.module
    if is_sharded(network):
        held = sum(p.to_local().numel() for p in network.parameters())
        print(f"holds {held / sum(p.numel() for p in network.parameters()):.2f} of the student")


if __name__ == "__main__":
    main()

"""Run by torchrun: trains the 8x8 world on every rank, and saves what each rank ended with."""

from __future__ import annotations

import sys
from pathlib import Path

from accelerate import Accelerator
from safetensors.torch import save_file

from distillkit import state
from distillkit.assembly import build_parts
from distillkit.recipe import AdamW, Optim, Run
from distillkit.runfolder import RunFolder
from distillkit.trainer import Trainer, Watcher
from tests.core.world import world_recipe


def main() -> None:
    folder, batch, resume = Path(sys.argv[1]), int(sys.argv[2]), "resume" in sys.argv
    stages = {1: 3, 4: 2 if not resume else 4}
    smooth = {"betas": (0.9, 0.99)}
    recipe = world_recipe(
        run=Run(batch=batch),
        optim=Optim(student=AdamW(lr=1e-3, **smooth), critic=AdamW(lr=1e-3, **smooth)),
        losses=[{"type": "least-squares"}],  # hinge leaves biases a gradient of rounding alone
        refinement={"type": "bottom-up", "stages": stages},
    )
    accelerator = Accelerator(cpu=True)
    trainer = Trainer(recipe, RunFolder(folder), build_parts(recipe), accelerator, Watcher())
    trainer.train(resume)
    ended = state.collect(trainer.players, trainer.watch)
    flat = {f"{part}.{k}": v.detach().clone() for part, ts in ended.items() for k, v in ts.items()}
    save_file(flat, folder / f"rank{accelerator.process_index}.safetensors")
    print("ranks:", accelerator.num_processes)


main()

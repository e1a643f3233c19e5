"""How much of a teacher's sample do caption and x_T leave open?

    python benchmarks/teacher_noise.py recipes/nitro_shapes.yaml [--num-images 200] [--set a.b=c]

Samples each x_T twice, with other fresh noise between the sampler's steps, and prints half of the
mean squared difference as a share of the samples' variance: 0 for a sampler that solves the ODE,
whose x_0 is a function of x_T, so that a regression can learn it pair by pair; what is above 0, a
regression can only average over.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch

import distillkit
from distillkit.randomness import generator, noise

BATCH = 50


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("recipe")
    options.add_argument("--num-images", type=int, default=200)
    options.add_argument("--set", action="append", default=[], help="a.b=c, as `distillkit run`")
    given = options.parse_args(words)
    recipe = distillkit.load_recipe(given.recipe, given.set).recipe
    teacher, prompts = recipe.teacher.build(), recipe.prompts.build()
    samples: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    for first in range(0, given.num_images, BATCH):
        ids = range(first, min(first + BATCH, given.num_images))
        x_T_BCHW = noise(teacher.latent_shape, 1, "x_T", ids)
        cond = teacher.encode([prompts[i % len(prompts)] for i in ids])
        for seed, found in enumerate(samples):
            found.append(teacher.sample(x_T_BCHW, cond, [generator(seed, "t", i) for i in ids]))
    one_NCHW, other_NCHW = (torch.cat(found) for found in samples)
    open_share = (one_NCHW - other_NCHW).square().mean() / 2 / one_NCHW.var(0).mean()
    print(f"{float(open_share):.3f} of the variance is open, given caption and x_T")


if __name__ == "__main__":
    main()

"""How much of a teacher's sample do caption and x_T leave open?

    python benchmarks/teacher_noise.py recipes/nitro_shapes.yaml [--num-images 200] [--set a.b=c]
    python benchmarks/teacher_noise.py recipes/nitro_shapes.yaml --num-images 100 --mean-of 4

Samples each x_T several times, with other fresh noise between the sampler's steps, and prints their
variance about their mean as a share of the samples' variance: 0 for a sampler that solves the ODE,
whose x_0 is a function of x_T, so that a regression can learn it pair by pair; what is above 0, a
regression can only average over. From three samples on, the recipe's metrics of that average stand
beside those of single samples, both against the teacher's pictures of other noise.

Legend: K samples of one x_T, N pictures, C latent channels, H, W latent cells.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import distillkit
from distillkit.contracts import Teacher
from distillkit.evaluation.sampling import decode
from distillkit.randomness import generator, noise
from distillkit.training.build import build_part

BATCH = 50


def draw(teacher: Teacher, prompts: Sequence[str], start: int, fresh: int) -> Tensor:
    """x_0 (N, C, H, W) of the prompts; seeds of x_T and of the noise between the steps."""
    found = []
    for first in range(0, len(prompts), BATCH):
        ids = range(first, min(first + BATCH, len(prompts)))
        x_T_BCHW = noise(teacher.latent_shape, start, "x_T", ids)
        cond = teacher.encode(prompts[ids.start : ids.stop])
        found.append(teacher.sample(x_T_BCHW, cond, [generator(fresh, "t", i) for i in ids]))
    return torch.cat(found)


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("recipe")
    options.add_argument("--num-images", type=int, default=200)
    options.add_argument("--mean-of", type=int, default=2, help="samples of each x_T")
    options.add_argument("--set", action="append", default=[], help="a.b=c, as `distillkit run`")
    given = options.parse_args(words)
    recipe = distillkit.load_recipe(given.recipe, given.set).recipe
    teacher, source = recipe.teacher.build(), recipe.prompts.build()
    prompts = [source[i % len(source)] for i in range(given.num_images)]
    many_KNCHW = torch.stack([draw(teacher, prompts, 1, k) for k in range(given.mean_of)])
    open_share = many_KNCHW.var(0).mean() / many_KNCHW[0].var(0).mean()
    print(f"{float(open_share):.3f} of the variance is open, given caption and x_T")
    if given.mean_of > 2:
        metrics = build_part(recipe.metrics[0])
        against = decode(teacher, draw(teacher, prompts, 2, given.mean_of))
        rows = {"single samples": many_KNCHW[0], f"mean of {given.mean_of}": many_KNCHW.mean(0)}
        for name, x_0_NCHW in rows.items():
            values = metrics.compute(decode(teacher, x_0_NCHW), prompts, against)
            main_ones = [key for key, info in metrics.info.items() if info.main]
            print(name, {key: round(float(values[key]), 3) for key in main_ones if key in values})


if __name__ == "__main__":
    main()

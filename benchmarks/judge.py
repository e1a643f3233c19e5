"""What each metric of the shapes world sees: the teacher's pictures, spoilt in known ways.

    python benchmarks/judge.py [--pictures 2000] [--seeds 3]
    python benchmarks/judge.py --floor [--pictures 1000]

The pictures are the teacher's of the demo's rows, from the samples that ship with the package; they
are compared with its pictures of other noise, as in a run. `told apart` is shown for several seeds
of its net, lowest to highest. The last lines are seconds of a core for one row.

`--floor`: how far two sets of true pictures lie apart, with equal captions and with others, which
is why a run's rows and its reference have equal captions (distillkit/evaluation/evaluate.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

import distillkit
from distillkit.evaluation.evaluate import make_sets, match
from distillkit.evaluation.rows import Evaluator, ProgressCount
from distillkit.randomness import generator
from distillkit.runs.folder import RunFolder
from distillkit.training.build import build_part, build_parts
from distillkit_shapes.distances import frechet_distance
from distillkit_shapes.features import features
from distillkit_shapes.pictures import render
from distillkit_shapes.prompts import sample_captions
from distillkit_shapes.scenes import codes_of
from distillkit_shapes.two_sample import told_apart

COLUMNS = ("caption_accuracy", "frechet_teacher", "sharpness_ratio", "spectrum_distance")


def blurred(x_NCHW: Tensor) -> Tensor:
    """A 3x3 mean; the border is repeated."""
    return avg_pool2d(pad(x_NCHW, (1, 1, 1, 1), mode="replicate"), 3, 1)


def grained(x_NCHW: Tensor, sigma: float) -> Tensor:
    """With white noise, the same at every call."""
    noise = torch.randn(x_NCHW.shape, generator=torch.Generator().manual_seed(0))
    return (x_NCHW + sigma * noise).clamp(0, 1)


SPOILT: dict[str, Callable[[Tensor], Tensor]] = {
    "teacher": lambda x: x,
    "halfway to a 3x3 blur": lambda x: (x + blurred(x)) / 2,
    "a tenth of the way": lambda x: 0.9 * x + 0.1 * blurred(x),
    "grain of 0.03": lambda x: grained(x, 0.03),
    "grain of 0.01": lambda x: grained(x, 0.01),
    "contrast x 0.85": lambda x: 0.5 + 0.85 * (x - 0.5),
    "unsharp mask": lambda x: (2 * x - blurred(x)).clamp(0, 1),
}


def teacher_pictures(count: int) -> tuple[Tensor, Tensor, list[str]]:
    """The demo's own set and its reference, with their captions."""
    recipe = distillkit.load_recipe("nitro_shapes").recipe
    parts, metrics = build_parts(recipe), build_part(recipe.metrics[0])
    total, seed = recipe.metrics[0].num_images, recipe.metrics[0].seed
    evaluator = Evaluator(
        recipe, parts, RunFolder("."), total, ProgressCount(lambda *_: None, total)
    )
    own, reference = make_sets(metrics, total, seed, evaluator.samples)
    prompts = [own.order.prompt(i) for i in range(total)]
    matched = match(prompts, [reference.order.prompt(i) for i in range(total)])
    pictures = evaluator.teacher(own, "teacher"), evaluator.teacher(reference, "reference")[matched]
    return pictures[0][:count], pictures[1][:count], prompts[:count]


def true_features(count: int, captions: int, seed: int) -> Tensor:
    """Features of true pictures of the captions that the seed `captions` draws."""
    codes = codes_of(sample_captions(count, captions, held_out=True))
    return features(render(codes, torch.Generator().manual_seed(seed)))


def print_floor(count: int, pairs: int = 6) -> None:
    """The Fréchet distance of two sets of true pictures: mean and standard deviation of pairs."""
    one, other = ([true_features(count, i, n + i) for i in range(pairs)] for n in (100, 200))
    samples = {"same captions": other, "other captions": [*other[1:], other[0]]}
    for name, sets in samples.items():
        apart = [frechet_distance(a, b) for a, b in zip(one, sets, strict=True)]
        print(f"{name}: mean {statistics.mean(apart):.3f} sd {statistics.stdev(apart):.3f}")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pictures", type=int, default=2000)
    options.add_argument("--seeds", type=int, default=3, help="nets of each two-sample test")
    options.add_argument("--floor", action="store_true", help="two sets of true pictures")
    given = options.parse_args()
    if given.floor:
        print_floor(given.pictures)
    else:
        print_judged(given)


def print_judged(given: argparse.Namespace) -> None:
    """A row of metrics for each way to spoil the pictures."""
    torch.set_num_threads(1)
    own, reference, prompts = teacher_pictures(given.pictures)
    metrics = build_part(distillkit.load_recipe("nitro_shapes").recipe.metrics[0])
    print(f"| | {' | '.join(COLUMNS)} | told_apart |", "|---" * (len(COLUMNS) + 2) + "|", sep="\n")
    seconds: dict[str, list[float]] = {"all metrics": [], "told_apart alone": []}
    for name, spoil in SPOILT.items():
        pictures = spoil(own)
        start = time.process_time()
        values = metrics.compute(pictures, prompts, reference)
        seconds["all metrics"].append(time.process_time() - start)
        apart = [values["told_apart"]]
        for seed in range(1, given.seeds):
            start = time.process_time()
            apart.append(told_apart(pictures, reference, generator(seed, "benchmark")))
            seconds["told_apart alone"].append(time.process_time() - start)
        cells = [f"{values[column]:.3f}" for column in COLUMNS]
        cells.append(f"{min(apart):.3f} to {max(apart):.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    for name, spent in seconds.items():
        if spent:
            print(f"{name}: {sorted(spent)[len(spent) // 2]:.1f} s")


if __name__ == "__main__":
    main()

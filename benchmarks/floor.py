"""How far two sets of true pictures of the shapes world lie apart, with equal captions or others.

    python benchmarks/floor.py [--pictures 1000] [--sets 6]

It is why a run's rows and its reference have equal captions (distillkit/evaluation/evaluate.py).
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import Tensor

from distillkit_shapes.distances import frechet_distance
from distillkit_shapes.features import features
from distillkit_shapes.pictures import render
from distillkit_shapes.prompts import sample_captions
from distillkit_shapes.scenes import codes_of


def pictures(count: int, captions: int, seed: int) -> Tensor:
    """Features of true pictures of the captions that the seed `captions` draws."""
    codes = codes_of(sample_captions(count, captions, held_out=True))
    return features(render(codes, torch.Generator().manual_seed(seed)))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pictures", type=int, default=1000, help="pictures a set")
    options.add_argument("--sets", type=int, default=6, help="pairs of sets")
    given = options.parse_args()
    one, other = (
        [pictures(given.pictures, i, first + i) for i in range(given.sets)] for first in (100, 200)
    )
    samples = {"same captions": other, "other captions": [*other[1:], other[0]]}
    for name, sets in samples.items():
        apart = [frechet_distance(a, b) for a, b in zip(one, sets, strict=True)]
        print(f"{name}: mean {statistics.mean(apart):.3f} sd {statistics.stdev(apart):.3f}")


if __name__ == "__main__":
    main()

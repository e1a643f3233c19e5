"""Do several seeds agree? Runs recipes with each seed, and compares them in one table.

    python benchmarks/seeds.py recipes/nitro_shapes.yaml [MORE ...] [--seeds 0 1 2] [--out DIR]

A run that is there is not made again, and one that was stopped goes on, so the command may be
broken off and repeated. The tables are those of `distillkit compare ... --format markdown`: means
over the seeds, with the lowest and the highest, and differences of the recipes, paired by seed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from distillkit.report.compare import compare, group, read_judged
from distillkit.report.tables import markdown_tables


def run_of(recipe: str, seed: int, out: Path, changes: Sequence[str]) -> Path:
    """A finished run's folder; it is made now if it is not there."""
    folder = out / f"{Path(recipe).stem}-{seed}"
    if not (folder / "metrics.json").exists():
        command = [sys.executable, "-m", "distillkit", "run", recipe, "--out", str(folder)]
        for change in (*changes, f"run.seed={seed}"):
            command += ["--set", change]
        if (folder / "recipe.yaml").exists():
            command.append("--resume")
        subprocess.run(command, check=True)
    return folder


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("recipes", nargs="+")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--out", type=Path, default=Path("runs/seeds"))
    options.add_argument("--set", action="append", default=[], help="a.b=c, as `distillkit run`")
    given = options.parse_args(words)
    runs = [
        run_of(recipe, seed, given.out, given.set)
        for recipe in given.recipes
        for seed in given.seeds
    ]
    groups = group([read_judged(run) for run in runs], together=True)
    print(markdown_tables(groups, compare(groups)), end="")


if __name__ == "__main__":
    main()

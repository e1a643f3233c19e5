"""Do several seeds agree? Runs recipes with each seed, and prints their figures as one table.

    python benchmarks/seeds.py recipes/nitro_shapes.yaml [MORE ...] [--seeds 0 1 2] [--out DIR]

A run that is there is not made again, and one that was stopped goes on, so the command may be
broken off and repeated. Figures are means over the seeds, with the lowest and the highest; the
ratio is the excess of the Fréchet distance over the floor at one step, as a share of the start's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

ROWS = (
    *("teacher", "start", "student_1", "student_2", "student_4"),
    *("student_1_only", "student_1_only_2", "student_1_only_4"),
)
COLUMNS = {
    "captions": "caption_accuracy",
    "Fréchet to teacher": "frechet_teacher",
    "sharpness": "sharpness_ratio",
    "told apart": "told_apart",
    "spectrum": "spectrum_distance",
}
"""Those that every run has are shown."""


def figures(recipe: str, seed: int, out: Path, changes: Sequence[str]) -> dict[str, Any]:
    """A run's figures; made now if they are not there."""
    folder = out / f"{Path(recipe).stem}-{seed}"
    made = folder / "metrics.json"
    if not made.exists():
        command = [sys.executable, "-m", "distillkit", "run", recipe, "--out", str(folder)]
        for change in (*changes, f"run.seed={seed}"):
            command += ["--set", change]
        if (folder / "recipe.yaml").exists():
            command.append("--resume")
        subprocess.run(command, check=True)
    read: dict[str, Any] = json.loads(made.read_text(encoding="utf-8"))
    return read


def spread(values: Sequence[float]) -> str:
    """Mean, lowest and highest."""
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: a line for each recipe and row of its figures."""
    every = [metrics for metrics_of_seeds in runs.values() for metrics in metrics_of_seeds]
    columns = {
        title: name
        for title, name in COLUMNS.items()
        if all(name in metrics["teacher"] for metrics in every)
    }
    lines = [f"| recipe | row | {' | '.join(columns)} | ratio |", "|---" * (len(columns) + 3) + "|"]
    for name, tables in runs.items():
        for row in (row for row in ROWS if all(row in t for t in tables)):
            cells = [spread([t[row][column] for t in tables]) for column in columns.values()]
            ratio = ""
            if row == "student_1":
                ratio = spread([t["summary"]["excess_ratio"] for t in tables])
            lines.append(f"| {name} | {row} | {' | '.join(cells)} | {ratio} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("recipes", nargs="+")
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options.add_argument("--out", type=Path, default=Path("runs/seeds"))
    options.add_argument("--set", action="append", default=[], help="a.b=c, as `distillkit run`")
    given = options.parse_args(words)
    runs = {
        Path(recipe).stem: [figures(recipe, seed, given.out, given.set) for seed in given.seeds]
        for recipe in given.recipes
    }
    print(table(runs))


if __name__ == "__main__":
    main()

"""Does a change of the code change a number? Records short runs, or compares them with a record.

    python benchmarks/record.py --out before.json        # in a checkout of the old code
    python benchmarks/record.py --against before.json    # in the new one, on the same machine

Each recipe of the shapes world runs 30 iterations (6 of the student's warm-up, 6 of the critics',
18 of both) on one thread. What is recorded: every line of the log but its seconds, and a digest of
every tensor in the checkpoint (weights, heads, moments, ages, running average) and in the published
student. Tensors are told apart by their bytes, so a file may be named otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

RECIPES = ("nitro_shapes", "ladd_shapes", "dmd2_shapes")
SHORT = ["warmup.student=6", "warmup.critic=6", "metrics=null", "run.threads=1"]
REFINEMENT = {
    "bottom-up": "refinement.stages={1: 12, 2: 3, 4: 3}",
    "fixed": "refinement.iterations=18",
}


def record(recipe: Path) -> dict[str, Any]:
    """The log and the digests of a short run."""
    kind = yaml.safe_load(recipe.read_text(encoding="utf-8"))["refinement"]["type"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "distillkit", "run", str(recipe), "--out", f"{folder}/run"]
        for change in (*SHORT, REFINEMENT[kind]):
            command += ["--set", change]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = Path(folder) / "run"
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        for row in log:
            del row["seconds"]
        return {
            "log": log,
            "checkpoint": digests(sorted((run / "checkpoints").glob("*"))[-1]),
            "student": digests(run / "student"),
        }


def digests(folder: Path) -> list[str]:
    """A digest of each tensor in the folder's safetensors files, sorted."""
    found = []
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(key)
                text = f"{tensor.dtype} {tensor.shape} ".encode()
                found.append(hashlib.sha256(text + tensor.tobytes()).hexdigest()[:16])
    return sorted(found)


def compare(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs, in lines."""
    return [
        f"{name}: {part} differs"
        for name, runs in before.items()
        for part in runs
        if runs[part] != now[name][part]
    ]


def main(words: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, help="where to write the record")
    options.add_argument("--against", type=Path, help="an earlier record to compare with")
    given = options.parse_args(words)
    now = {name: record(Path("recipes") / f"{name}.yaml") for name in RECIPES}
    if given.out:
        given.out.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
    if not given.against:
        return 0
    before = json.loads(given.against.read_text(encoding="utf-8"))
    differences = compare(before, now)
    tensors = sum(len(now[name]["checkpoint"]) + len(now[name]["student"]) for name in now)
    rows = sum(len(now[name]["log"]) for name in now)
    print("\n".join(differences) or f"equal: {rows} lines of log, {tensors} tensors")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())

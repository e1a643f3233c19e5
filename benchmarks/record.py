"""Does a change of the code change a number? Records short runs, or compares them with a record.

    python benchmarks/record.py --out before.json        # in a checkout of the old code
    python benchmarks/record.py --against before.json    # in the new one, on the same machine

Three recipes of the shapes world run 30 iterations (6 of the student's warm-up, 6 of the critics',
18 of both) on one thread. What is recorded: every line of the log but its seconds, and a digest of
every tensor in the checkpoint (weights, heads, moments, ages, running average) and in the published
student. Tensors are told apart by their bytes, so a file may be named otherwise. Compared is what
the earlier record has: the new code may log and save more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

RECIPES = ("nitro_shapes", "ladd_shapes", "dmd2_shapes")
SHORT = [
    *("warmup.student=6", "warmup.losses=[{type: regression}]", "warmup.critic=6"),
    *("metrics=null", "run.threads=1"),
]
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
                # The monitor's values one by one, since others may be added behind them.
                single = key == "monitor"
                for part in [tensor[n : n + 1] for n in range(len(tensor))] if single else [tensor]:
                    text = f"{part.dtype} {part.shape} ".encode()
                    found.append(hashlib.sha256(text + part.tobytes()).hexdigest()[:16])
    return sorted(found)


def compare(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What an earlier record has and the new one has otherwise, in lines."""
    differences = []
    for name, runs in before.items():
        if name not in now:
            differences.append(f"{name}: was not run")
            continue
        differences += [f"{name}: {line}" for line in _log(runs["log"], now[name]["log"])]
        for part in ("checkpoint", "student"):
            missing = Counter(runs[part]) - Counter(now[name][part])
            if missing:
                total = len(runs[part])
                differences.append(f"{name}: {part}: {missing.total()} of {total} tensors differ")
    return differences


def _log(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> list[str]:
    """The first line of the log that differs, by its keys, and how many do."""
    if len(before) != len(now):
        return [f"log: {len(now)} lines, not {len(before)}"]
    rows = [
        [key for key, value in old.items() if new.get(key, {} if value == {} else None) != value]
        for old, new in zip(before, now, strict=True)
    ]
    changed = [n for n, keys in enumerate(rows) if keys]
    if not changed:
        return []
    first = changed[0]
    return [
        f"log: {len(changed)} of {len(before)} lines differ, from iteration {first}: "
        + ", ".join(f"{k} {before[first][k]} -> {now[first].get(k)}" for k in rows[first])
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
    tensors = sum(len(run["checkpoint"]) + len(run["student"]) for run in before.values())
    rows = sum(len(run["log"]) for run in before.values())
    print("\n".join(differences) or f"equal: {rows} lines of log, {tensors} tensors")
    return 1 if differences else 0


if __name__ == "__main__":
    raise SystemExit(main())

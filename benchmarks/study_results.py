"""What `study.py` keeps of a run, and the page that it makes of all of them.

Intervals are those of Student's t at 95 %, over seeds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from distillkit.atomic import appearing, write_text
from distillkit.evaluation.table import show
from distillkit.report.paired import interval
from distillkit.report.verdict import verdict
from distillkit.runs.folder import RunFolder, read_log

BEGIN, END = "<!-- study: tables -->", "<!-- study: end -->"
WON = "won "
WIDTH = 900
"""Widest picture that is kept, in pixels."""


def collect(folder: Path) -> dict[str, Any]:
    """A finished run in small: its metrics, what its log says of the critics, its time."""
    run = RunFolder(folder)
    metrics = json.loads(run.metrics.read_text(encoding="utf-8")) if run.metrics.exists() else {}
    log = read_log(run.log)
    kept = {key: value for key, value in metrics.items() if key not in ("info", "made_with")}
    return kept | {
        "log": log_means(log),
        "verdict": verdict(log),
        "iterations": len(log),
        "seconds": round(sum(row["seconds"] for row in log)),
        "versions": run.about().get("versions", {}),
    }


def log_means(log: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over the second half of the iterations in which both players train."""
    joint = [row for row in log if row["student"] is not None and row["critic"] is not None]
    rows = joint[len(joint) // 2 :]
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault("critic_loss", []).append(row["critic"])
        for what in ("accuracy", "margin", "held_out"):
            if row.get(what):
                found.setdefault(what, []).append(mean(row[what].values()))
        for what in ("ratio", "cosine"):
            if what in row.get("adversarial", {}):
                found.setdefault(what, []).append(row["adversarial"][what])
        if "seeds" in row:
            share = row["seeds"]["student"] / row["seeds"]["teacher"]
            found.setdefault("seed_distance", []).append(share)
    return {name: round(mean(values), 5) for name, values in found.items()}


def keep_picture(folder: Path, target: Path) -> None:
    """The run's comparison of teacher, start and student, in few colours."""
    from PIL import Image

    source = RunFolder(folder).grids / "compare.png"
    if not source.is_file() or target.exists():
        return
    with Image.open(source) as image:
        image.thumbnail((WIDTH, image.height))
        with appearing(target) as temporary:
            image.convert("RGB").quantize(128).save(temporary, format="PNG", optimize=True)


def at(result: Mapping[str, Any], place: str) -> float | None:
    """The number at `student_1.frechet_teacher`; None where there is none.

    `won student_1.caption_accuracy` is the share of the way from the start's to the teacher's.
    """
    if place.startswith(WON):
        own = place.removeprefix(WON)
        metric = own.partition(".")[2]
        reached, start, end = (at(result, p) for p in (own, f"start.{metric}", f"teacher.{metric}"))
        if reached is None or start is None or end is None or start == end:
            return None
        return (reached - start) / (end - start)
    found: Any = result
    for name in place.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) else None


def write_page(page: Path, file: Path, study: Any, jobs: Sequence[Any]) -> None:
    """Put the tables between the page's marks; without a page, or marks in it, at its end."""
    results: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in study.arms}
    for job in jobs:
        if job.is_done():
            first = not results[job.arm]
            results[job.arm][job.seed] = json.loads(job.result.read_text(encoding="utf-8"))
            if first:  # one picture an arm
                keep_picture(job.folder, job.result.with_suffix(".png"))
    text = page.read_text(encoding="utf-8") if page.exists() else "# Study\n"
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    made = "\n".join(tables(study, results, jobs, page.parent))
    write_text(page, f"{before}{BEGIN}\n\n{made}\n{END}{after}")


def tables(
    study: Any, results: Mapping[str, Mapping[int, Any]], jobs: Sequence[Any], beside: Path
) -> list[str]:
    """Markdown: a table for each group of arms, every arm in it, then failures and pictures."""
    wanted = {name: [job.seed for job in jobs if job.arm == name] for name in study.arms}
    lines = [
        "Mean over seeds ± half of the 95 % interval (Student's t). Below it, where an arm is "
        "compared with another: the difference, paired by seed, with its interval.",
        "",
    ]
    for group in dict.fromkeys(arm.group for arm in study.arms.values()):
        lines += [f"## {group}", ""] if group else []
        lines += [
            f"| arm | question | seeds | {' | '.join(study.columns)} |",
            "|---" * (3 + len(study.columns)) + "|",
        ]
        for name, arm in study.arms.items():
            if arm.group == group:
                lines.append(_row(name, arm, study.columns, results, len(wanted[name])))
        lines.append("")
    lines += _failures(results)
    for job in jobs:
        picture = job.result.with_suffix(".png")
        if picture.exists():
            place = os.path.relpath(picture, beside)
            lines += [f"**{job.arm}**, seed {job.seed}:", "", f"![{job.name}]({place})", ""]
    return lines


def _row(
    name: str, arm: Any, columns: Mapping[str, str], results: Mapping[str, Any], wanted: int
) -> str:
    own = {seed: r for seed, r in results[name].items() if "failed" not in r}
    other = results.get(arm.against or "", {})
    failed = len(results[name]) - len(own)
    seeds = f"{len(own)} of {wanted}" + (f", {failed} failed" if failed else "")
    cells = []
    for place in columns.values():
        values = [v for r in own.values() if (v := at(r, place)) is not None]
        cell = _shown(*interval(values)) if values else "–"
        pairs = [(at(own[s], place), at(other[s], place)) for s in own if s in other]
        gaps = [a - b for a, b in pairs if a is not None and b is not None]
        if gaps:
            cell += f"<br>{_shown(*interval(gaps), sign=True)}"
        cells.append(cell)
    against = f" (against {arm.against})" if arm.against else ""
    return f"| {name} | {arm.question}{against} | {seeds} | {' | '.join(cells)} |"


def _shown(value: float, half: float | None, sign: bool = False) -> str:
    text = f"{'+' if sign and value >= 0 else ''}{show(value)}"
    return text if half is None else f"{text} ± {show(half)}"


def _failures(results: Mapping[str, Mapping[int, Any]]) -> list[str]:
    found = [
        f"- {name}, seed {seed}: {result['failed']}"
        for name, by_seed in results.items()
        for seed, result in by_seed.items()
        if "failed" in result
    ]
    return ["Runs that failed:", "", *found, ""] if found else []

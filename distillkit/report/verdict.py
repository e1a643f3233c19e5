"""A run in two sentences: what its log says of the critics, and its metrics of the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from distillkit.evaluation import table
from distillkit.training.divergence import SILENT_LOSS, teach_nothing

WON = 0.95
"""Accuracy above which critics have won."""

Log = Sequence[Mapping[str, Any]]


def verdict(log: Log) -> str:
    """Of the second half of the iterations in which both players trained; empty before those."""
    joint = [row for row in log if row["student"] is not None and row["critic"] is not None]
    rows = joint[len(joint) // 2 :]
    if not rows:
        return ""
    accuracies = [mean(row["accuracy"].values()) for row in rows if row.get("accuracy")]
    if not accuracies:
        return "No critic judged the student: its losses did not ask for any."
    right = mean(accuracies)
    ratio, cosine = (_mean(rows, name) for name in ("ratio", "cosine"))
    unseen = [mean(row["held_out"].values()) for row in rows if row.get("held_out")]
    how = f"they were right {right:.1%} of the time{_by_length(rows)}"
    if unseen:
        how += f" ({mean(unseen):.1%} on pairs that training never sees)"
    losses = [row["critic"] / row["silent"] for row in rows if row.get("silent")]
    silent = bool(losses) and abs(mean(losses) - 1) < SILENT_LOSS
    if silent:
        how += ", their loss was that of heads that always say 0"
    if cosine is not None:
        how += f", and their step at x_0 had cosine {cosine:+.3f} with (teacher - student)"
    if ratio is not None:
        how += f" and {ratio:.2f} of the other losses' gradient"
    if right > WON:
        return f"The critics won: {how}."
    if teach_nothing(right, silent, ratio):
        return f"The critics taught the student little: {how}."
    return f"The critics were in the game: {how}."


def outcome(metrics: Mapping[str, Any]) -> str:
    """What is left of the distance above the floor: at one step of the start's, at more of what the
    one-step stage's weights have with as many steps. Empty where neither is known."""
    summary = metrics.get("summary", {})
    excess: Mapping[str, float] = summary.get("excess", {})
    own = [row for row in excess if row.startswith("student_") and "only" not in row]
    steps = {row: int(row.removeprefix("student_")) for row in own}
    base = {row: "start" if n == 1 else f"student_1_only_{n}" for row, n in steps.items()}
    left = {row: excess[row] / excess[base[row]] for row in own if excess.get(base[row], 0) > 0}
    if not left:
        return ""
    of = {row: "the start's" if steps[row] == 1 else "the 1-step-only weights'" for row in left}
    shares = (f"{share:.2f} of {of[row]} at {_steps(steps[row])}" for row, share in left.items())
    said = f"{table.title(metrics, summary['metric'])} above the floor: {', '.join(shares)}."
    worse = [_steps(steps[row]) for row, share in left.items() if share > 1]
    if worse:
        said += f" So at {' and '.join(worse)} training did harm"
        alone = excess.get("student_1_only")
        if left.get("student_1", 0) > 1 and alone is not None and alone < excess["student_1"]:
            said += f"; its one-step stage ended with {alone / excess['start']:.2f} at 1 step"
        said += "."
    return said


def _by_length(rows: Log) -> str:
    """Accuracies by length of the roll-out, where rows have several."""
    lengths = sorted({row["steps"] for row in rows if row.get("steps") and row.get("accuracy")})
    if len(lengths) < 2:
        return ""
    right = {
        steps: mean(
            mean(r["accuracy"].values())
            for r in rows
            if r.get("steps") == steps and r.get("accuracy")
        )
        for steps in lengths
    }
    return f" ({', '.join(f'{_steps(steps)}: {share:.1%}' for steps, share in right.items())})"


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _mean(rows: Log, name: str) -> float | None:
    found = [row["adversarial"][name] for row in rows if name in row.get("adversarial", {})]
    return mean(found) if found else None

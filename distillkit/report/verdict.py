"""What a run's log says of its critics, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

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
    how = f"they were right {right:.1%} of the time"
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


def _mean(rows: Log, name: str) -> float | None:
    found = [row["adversarial"][name] for row in rows if name in row.get("adversarial", {})]
    return mean(found) if found else None

"""The record of a run: what an earlier one has must be there, and more may be."""

from __future__ import annotations

import copy
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "record.py"
RECORD = runpy.run_path(str(SCRIPT))

BEFORE: dict[str, Any] = {
    "mine": {
        "log": [
            {"iteration": 0, "critic": None, "accuracy": {}},
            {"iteration": 1, "critic": 2.0, "accuracy": {"v t10": 0.5}},
        ],
        "checkpoint": ["a", "b", "b"],
        "student": ["c"],
    }
}


def changed(change: Any) -> list[str]:
    """What is said of a new record that went through `change`."""
    now = copy.deepcopy(BEFORE)
    change(now["mine"])
    found: list[str] = RECORD["compare"](BEFORE, now)
    return found


def test_more_keys_more_tensors_and_no_empty_accuracy_are_equal() -> None:
    def more(run: dict[str, Any]) -> None:
        del run["log"][0]["accuracy"]
        run["log"][1]["pull"] = {"hinge": 0.1}
        run["checkpoint"] += ["d", "b"]

    assert changed(lambda run: None) == changed(more) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda run: run["log"][1].update(critic=2.1),
            "mine: log: 1 of 2 lines differ, from iteration 1: critic 2.0 -> 2.1",
        ),
        (
            lambda run: run["log"][1].pop("accuracy"),
            "mine: log: 1 of 2 lines differ, from iteration 1: accuracy {'v t10': 0.5} -> None",
        ),
        (lambda run: run["log"].pop(), "mine: log: 1 lines, not 2"),
        (lambda run: run["checkpoint"].remove("b"), "mine: checkpoint: 1 of 3 tensors differ"),
        (lambda run: run["student"].__setitem__(0, "x"), "mine: student: 1 of 1 tensors differ"),
    ],
)
def test_what_differs_is_told(change: Any, line: str) -> None:
    assert changed(change) == [line]


def test_a_recipe_that_was_not_run_is_told() -> None:
    assert RECORD["compare"](BEFORE, {}) == ["mine: was not run"]


def test_digests_know_values_type_and_shape_and_the_monitor_value_by_value(tmp_path: Path) -> None:
    def digests(**tensors: torch.Tensor) -> list[str]:
        save_file(tensors, tmp_path / "progress.safetensors")
        found: list[str] = RECORD["digests"](tmp_path)
        return found

    plain = digests(a=torch.zeros(2))
    assert digests(b=torch.zeros(2)) == plain
    others = [torch.ones(2), torch.zeros(2, dtype=torch.int32), torch.zeros(1, 2)]
    assert all(digests(a=other) != plain for other in others)
    one = digests(monitor=torch.tensor([0.5]))
    three = digests(monitor=torch.tensor([0.5, 1.0, 0.0]))
    assert (len(one), len(three)) == (1, 3)
    assert set(one) < set(three)

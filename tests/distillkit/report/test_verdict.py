"""One sentence about the critics, from the second half of the joint iterations."""

from __future__ import annotations

from typing import Any

import pytest

from distillkit.report.verdict import outcome, verdict


def row(accuracy: float, cosine: float = 0.1, ratio: float = 0.5) -> dict[str, Any]:
    told = {"accuracy": {"global t10": accuracy}, "adversarial": {"cosine": cosine, "ratio": ratio}}
    return {"student": 1.0, "critic": 2.0} | told


@pytest.mark.parametrize(
    ("rows", "start"),
    [
        ([row(0.97)] * 4, "The critics won: they were right 97.0% of the time"),
        ([row(0.51, ratio=0.01)] * 4, "The critics taught the student little"),
        ([row(0.51, cosine=-0.01)] * 4, "The critics were in the game"),
        ([row(0.6, ratio=0.01) | {"silent": 2.01}] * 4, "The critics taught the student little"),
        ([row(0.6, ratio=0.5) | {"silent": 2.01}] * 4, "The critics were in the game"),
        ([row(0.6, ratio=0.01) | {"silent": 2.5}] * 4, "The critics were in the game"),
        ([row(0.6, cosine=0.0)] * 4, "The critics were in the game"),
        ([row(0.97)] * 4 + [row(0.6)] * 4, "The critics were in the game"),
        ([row(0.6) | {"student": None}] * 4, ""),
        ([row(0.6) | {"accuracy": {}}] * 4, "No critic judged the student"),
        ([], ""),
    ],
)
def test_the_verdict(rows: list[dict[str, Any]], start: str) -> None:
    assert verdict(rows).startswith(start)
    assert bool(verdict(rows)) == bool(start)


def test_it_states_what_was_measured() -> None:
    said = verdict([row(0.6, cosine=0.125, ratio=0.5), row(0.58, cosine=0.125, ratio=0.25)])
    assert "58.0%" in said
    assert "+0.125" in said
    assert "0.25 of the other losses' gradient" in said


def test_it_states_the_accuracy_on_held_out_pairs() -> None:
    rows = [row(0.6), row(0.6), row(0.6) | {"held_out": {"global t10": 0.5, "local t10": 0.75}}]
    assert "60.0% of the time (62.5% on pairs that training never sees)" in verdict(rows)


def test_it_states_the_accuracy_by_length_of_the_roll_out() -> None:
    rows = [row(0.6) | {"steps": 1}, row(0.8) | {"steps": 1}, row(0.5) | {"steps": 4}]
    assert "(1 step: 80.0%, 4 steps: 50.0%)" in verdict(rows)
    assert "step:" not in verdict([row(0.6) | {"steps": 1}] * 4)


def judged(**excess: float) -> dict[str, Any]:
    return {
        "summary": {"metric": "distance", "excess": excess},
        "info": {"distance": {"title": "Distance"}},
    }


def test_the_outcome_is_what_is_left_beside_the_start_and_the_one_step_stage() -> None:
    ended = judged(
        start=0.4, student_1=0.1, student_2=0.1, student_1_only=0.1, student_1_only_2=0.2
    )
    assert outcome(ended) == (
        "Distance above the floor: 0.25 of the start's at 1 step, "
        "0.50 of the 1-step-only weights' at 2 steps."
    )


def test_the_outcome_says_where_training_did_harm() -> None:
    assert outcome(judged(start=0.4, student_1=0.5, student_1_only=0.2)).endswith(
        "So at 1 step training did harm; its one-step stage ended with 0.50 at 1 step."
    )
    assert outcome(judged(start=0.4, student_1=0.5)).endswith("training did harm.")


@pytest.mark.parametrize("metrics", [{}, judged(), judged(start=0.0, student_1=0.1)])
def test_no_outcome_without_a_distance_to_compare_with(metrics: dict[str, Any]) -> None:
    assert outcome(metrics) == ""

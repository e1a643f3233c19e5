"""Which rows a finished run is judged by."""

from __future__ import annotations

import pytest

from distillkit.evaluation.rows import rows_of
from tests.distillkit.world import world_recipe


def test_rows_name_last_stage_and_controls() -> None:
    rows = rows_of(world_recipe().refinement.build(), 0, (1, 2, 4))
    assert [(r.key, r.snapshot, r.steps) for r in rows] == [
        ("teacher", None, 1),
        ("start", "start", 1),
        ("student_1", "4-step", 1),
        ("student_2", "4-step", 2),
        ("student_4", "4-step", 4),
        ("student_1_only", "1-step", 1),
        ("student_1_only_2", "1-step", 2),
        ("student_1_only_4", "1-step", 4),
    ]


@pytest.mark.parametrize("stages", [{1: 5}, {2: 5, 4: 5}])
def test_no_controls_without_one_step_only_weights_of_their_own(stages: dict[int, int]) -> None:
    refinement = world_recipe(refinement={"type": "bottom-up", "stages": stages}).refinement.build()
    assert [r.key for r in rows_of(refinement, 0, (1, 2, 4))][-1] == "student_4"


def test_rows_of_the_lengths_that_a_recipe_judges_by() -> None:
    keys = [r.key for r in rows_of(world_recipe().refinement.build(), 0, (1, 3))]
    assert keys == [
        *("teacher", "start", "student_1", "student_3", "student_1_only", "student_1_only_3")
    ]

"""Whether a published start's noise levels are the student's; without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.recipe.load import load_recipe


def misfits(folder: Path, teacher: str, student: str) -> list[Any]:
    """What `check` says of noise levels."""
    file = folder / "tiny.yaml"
    file.write_text(
        f"prompts: {{type: list, prompts: [a]}}\nteacher: {{type: z-image, {teacher}}}\n"
        f"student: {{type: z-image, {student}}}\n"
        "losses: [{type: regression}]\noptim: {student: {lr: 1.0e-5}}\n"
        "refinement: {type: bottom-up, stages: {1: 2}}\n"
    )
    recipe = load_recipe(file).recipe
    remarks = recipe.student.preflight(recipe)
    return [r for r in remarks if "noise levels of shift" in r.message]


@pytest.mark.parametrize("given", [False, True])
def test_a_turbo_whose_grid_does_not_fit_is_a_sentence(tmp_path: Path, given: bool) -> None:
    """A teacher of shift 6 and Z-Image-Turbo's 3: sigma 0.9, 0.75, 0.5 are at s = sigma / (6 - 5
    sigma) = 0.6, 0.333, 0.143 of the teacher's. Levels that were given are the user's own."""
    teacher = tmp_path / "teacher"
    for part, config in (("scheduler", '{"shift": 6.0}'), ("transformer", "{}")):
        (teacher / part).mkdir(parents=True)
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (teacher / part / name).write_text(config)
    levels = ", levels: [999, 700, 400, 100]" if given else ""
    [remark] = misfits(tmp_path, f"model: {teacher}", f"start: z-image-turbo{levels}")
    assert "shift 3, and the teacher's schedule has shift 6" in remark.message
    assert "`levels: [999.0, 599.0, 332.3, 141.9]` visits its own" in remark.message
    assert remark.is_error != given


LEVELS = "levels: [999, 599, 332, 142]"


@pytest.mark.parametrize(
    ("teacher", "student", "told"),
    [
        ("preset: z-image", "start: z-image-turbo", True),
        ("model: Tongyi-MAI/Z-Image", "start: z-image-turbo - z-image", True),
        ("preset: z-image", f"start: z-image-turbo - z-image, {LEVELS}", False),
        ("preset: z-image-turbo", "start: z-image-turbo", False),
        ("preset: z-image", "start: teacher", False),
    ],
)
def test_the_turbos_schedule_is_not_its_bases(
    tmp_path: Path, teacher: str, student: str, told: bool
) -> None:
    """Z-Image has shift 6, its Turbo 3: the levels that docs/own-model.md names fit."""
    assert bool(misfits(tmp_path, teacher, student)) == told

"""Picture grids: sizes, words beside pictures, previews on fixed prompts."""

from __future__ import annotations

import pytest
import torch

from distillkit.evaluation.grids import make_previews, sheet, square, to_image
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.teacher import ExampleTeacher
from distillkit.training.build import build_parts
from distillkit.training.models.student import Student
from tests.distillkit.world import world_recipe


def test_sheet_magnifies_by_whole_factors_and_leaves_room_for_words() -> None:
    """8 pixels become 96 (12 a pixel); two columns and a gap of 4 make 196."""
    red = torch.zeros(2, 3, 8, 8)
    red[:, 0] = 1
    image = sheet([red, red])
    assert image.size == (196, 196)
    assert image.getpixel((95, 95)) == (255, 0, 0)
    assert image.getpixel((97, 5)) == (255, 255, 255)
    named = sheet([red, red], ["teacher", "1 step"], ["a very long caption " * 20, "b"])
    assert named.width > 196 + 40
    assert 196 + 5 * 17 <= named.height <= 196 + 6 * 17  # five lines of caption at most
    assert named.getpixel((named.width - 1, named.height - 1)) == (255, 0, 0)


def test_large_pictures_are_reduced_where_asked() -> None:
    assert sheet([torch.zeros(1, 3, 64, 128)], most=32).size == (32, 16)
    assert sheet([torch.zeros(1, 3, 64, 128)], cell=1).size == (128, 64)
    assert square(torch.zeros(5, 3, 4, 4), cell=1).size == (3 * 4 + 8, 2 * 4 + 4)


def test_pixels_are_rounded() -> None:
    """0.5 * 255 = 127.5, which rounds to the even 128; values outside of [0, 1] are clamped."""
    assert to_image(torch.tensor([0.5, -1.0, 2.0]).view(3, 1, 1)).getpixel((0, 0)) == (128, 0, 255)


def test_previews_ask_the_teacher_once_and_the_student_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    inner = ExampleTeacher.sample
    monkeypatch.setattr(ExampleTeacher, "sample", lambda *a: asked.append(1) or inner(*a))
    recipe = world_recipe(metrics=ExampleMetricsConfig(subject="held out"))
    parts = build_parts(recipe)
    previews = make_previews(recipe, parts)
    student = Student(parts.network, parts.teacher.schedule, 500)
    first = previews.image(student)
    assert first.tobytes() == previews.image(student).tobytes()
    with torch.no_grad():
        next(parts.network.module.parameters()).mul_(2)
    assert first.tobytes() != previews.image(student).tobytes()
    assert asked == [1]
    assert previews.samples.order.prompt(0).startswith("held out")

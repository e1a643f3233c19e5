"""Calls that a run makes for real pictures: what is wrong is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.examples.prompts import ExamplePromptsConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.training.guard import PartError
from tests.distillkit.training.guard.spoilt import TORN, Words, made, sentence, spoilt, torn
from tests.distillkit.world import THEIRS, brought_by_theirs, trainer, world_recipe


class Pictures(Words):
    """Captions with pictures."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__(str)
        self.change = change

    def images(self, indices: Any, height: int, width: int) -> Any:
        return self.change(torch.zeros(len(indices), 3, height, width))

    def digest(self) -> str:
        return "none"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (torn, f"failed in images(): {TORN}"),
        (
            lambda images_B3HW: images_B3HW[:, :1],
            "breaks its contract: images() returned a tensor (4, 1, 8, 8), not pictures (4, 3, 8, "
            "8)",
        ),
    ],
)
def test_real_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, said: str
) -> None:
    part = made(ExamplePromptsConfig, lambda: Pictures(change))
    assert sentence(monkeypatch, tmp_path / "run", part, real="pictures") == said


def test_a_teacher_that_encodes_no_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = made(ExamplePromptsConfig, lambda: Pictures(lambda x: x))
    for change, end in (
        (torn, f"failed in encode_images(): {TORN}"),
        (
            lambda x: x[:1],
            "breaks its contract: encode_images() returned a tensor (1, 4, 8, 8), not latents (4, "
            "4, 8, 8)",
        ),
    ):
        part = spoilt(ExampleTeacherConfig, "encode_images", change)
        brought_by_theirs(monkeypatch, part)
        recipe = world_recipe(teacher=part, prompts=pictures, samples={"real": "pictures"})
        run = trainer(recipe, tmp_path)
        with pytest.raises(PartError) as caught:
            run.step(0)
        assert str(caught.value) == f"teacher 'example' {THEIRS} {end}"

"""The chain of runs that makes the shipped one-step weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from distillkit_shapes.train.students import one_step


def test_each_cycle_begins_from_the_last_ones_weights_and_first_and_last_are_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, int, int]] = []

    def train(loaded: Any, run: Path, resume: bool) -> Any:
        assert not resume
        recipe = loaded.recipe
        said.append((recipe.student.start, recipe.refinement.iterations, recipe.run.seed))
        unet = run / "student" / "unet"
        unet.mkdir(parents=True)
        (unet / "config.json").write_text(run.name)
        return SimpleNamespace(student=run / "student")

    monkeypatch.setattr(one_step.api, "train", train)
    one_step.train_one_step(tmp_path / "work", tmp_path / "package")

    unets = [tmp_path / "work" / f"one_step_{cycle}" / "student" / "unet" for cycle in range(3)]
    starts = ["teacher", str(unets[0]), str(unets[1])]
    assert said == list(zip(starts, one_step.CYCLES, range(3), strict=True))
    shipped = {
        folder.name: (folder / "config.json").read_text()
        for folder in (tmp_path / "package").iterdir()
    }
    assert shipped == {"one_step": "one_step_0", "one_step_plateau": "one_step_2"}

"""How a recipe differs from a run's, field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.recipe.compare import compare_recipes, every_change
from distillkit.recipe.load import dump_recipe
from tests.distillkit.fakes import RECIPE, fake_plugins, load


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("distillkit.recipe.load.installed", fake_plugins)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(load(RECIPE, folder=tmp_path)))
    return file


def test_the_same_recipe_has_no_changes(started: Path) -> None:
    """Comments do not count, nor fields that an earlier version did not have yet."""
    recipe = load(RECIPE, folder=started.parent)
    assert every_change(started, recipe) == []
    started.write_text("# As it was.\n" + started.read_text().replace(" seed: 0,", ""))
    assert every_change(started, recipe) == []


def test_every_field_that_differs_is_told(started: Path) -> None:
    flags = ("run.seed=1", "losses.1.power=l2", "pool.views.local={crop: 0.5}", "refresh=")
    flags += ("prompts.prompts=[a cat]", "metrics.num_images=12")
    recipe = load(RECIPE, *flags, folder=started.parent)
    assert every_change(started, recipe) == [
        "prompts.prompts: [a cat, 'off', '1e-4'] -> [a cat]",
        "refresh.type: random -> absent",
        "refresh.fraction: 0.02 -> absent",
        "losses.1.power: l1 -> l2",
        "metrics.0.num_images: 10 -> 12",
        "run.seed: 0 -> 1",
        "pool.views.local.crop: absent -> 0.5",
        "refresh: absent -> null",
    ]


def test_a_part_that_left_is_compared_as_it_is_written(started: Path) -> None:
    started.write_text(started.read_text().replace("type: random", "type: gone"))
    recipe = load(RECIPE, folder=started.parent)
    assert every_change(started, recipe) == ["refresh.type: gone -> random"]
    started.write_text("[")
    [line] = every_change(started, recipe)
    assert line.startswith("the run's recipe.yaml can't be read: not YAML")


def test_empty_values_differ_from_absent_ones() -> None:
    assert compare_recipes("a: {}", "b: 1") == ["a: {} -> absent", "b: absent -> 1"]

"""A recipe is read, overridden, found by its name, and written out again unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.configs import SOCKETS
from distillkit.recipe.copy import MODELINE
from distillkit.recipe.load import RecipeError, dump_recipe, find_recipe, find_recipes, load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from tests.distillkit.fakes import (
    RECIPE,
    Distance,
    FakeRefinement,
    Hinge,
    RandomRefresh,
    fake_plugins,
    load,
    problems,
)

ROOT = Path(__file__).parents[3]


def test_a_recipe_holds_the_parts_that_it_names(tmp_path: Path) -> None:
    recipe = load(RECIPE, folder=tmp_path)
    assert recipe.refresh == RandomRefresh(fraction=0.02)
    assert recipe.losses == [Hinge(weight=2), Distance(power="l1")]
    assert recipe.refinement == FakeRefinement(stages={1: 600, 2: 200})
    assert recipe.optim.student.lr == 1e-5
    assert recipe.prompts.build() == ["a cat", "off", "1e-4"]


def test_a_recipe_round_trips_with_every_socket(tmp_path: Path) -> None:
    recipe = load(RECIPE, folder=tmp_path)
    dumped = dump_recipe(recipe)
    assert load(dumped, folder=tmp_path) == recipe
    assert dump_recipe(load(dumped, folder=tmp_path)) == dumped
    for base in SOCKETS:
        field = {"loss": "losses"}.get(base.socket, base.socket)
        if base.socket in ("exporter", "layout"):
            continue  # of the commands around a recipe
        assert getattr(recipe, field) != Recipe.model_fields[field].default
    assert "fraction: 0.02" in dumped
    assert "whole: {crop: 1.0}" in dumped


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("run.seed=7", "run.seed", 7),
        ("optim.student.lr=3e-4", "optim.student.lr", 3e-4),
        ("losses.1.power=l2", "losses.1.power", "l2"),
        ("refinement.stages.2=5", "refinement.stages", {1: 600, 2: 5}),
        ("refinement.stages.4=9", "refinement.stages", {1: 600, 2: 200, 4: 9}),
        ("metrics=", "metrics", ()),
        ("prompts.prompts=[on, 1_0]", "prompts.prompts", ["on", "1_0"]),
        ("pool.timesteps=[1, 2, 3]", "pool.timesteps", (1, 2, 3)),
        ("losses=[{type: hinge}]", "losses", [Hinge()]),
        ("refresh={type: random, fraction: 1}", "refresh.fraction", 1.0),
        (" run.trackers = [tensorboard]", "run.trackers", ["tensorboard"]),
    ],
)
def test_set_changes_a_field(override: str, field: str, value: object, tmp_path: Path) -> None:
    there: object = load(RECIPE, override, folder=tmp_path)
    for part in field.split("."):
        there = there[int(part)] if isinstance(there, list) else getattr(there, part)
    assert there == value


def test_later_flags_win_and_missing_parents_are_made(tmp_path: Path) -> None:
    without = RECIPE.replace("refresh: {type: random, fraction: 0.02}\n", "")
    flags = ("refresh.fraction=1", "refresh.type=random", "run.seed=1", "run.seed=2")
    recipe = load(without, *flags, folder=tmp_path)
    assert recipe.refresh == RandomRefresh(fraction=1)
    assert recipe.run.seed == 2


def test_a_recipe_is_found_by_path_or_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {"one": tmp_path / "one.yaml", "sub/two": tmp_path / "sub" / "two.yaml"}
    monkeypatch.setattr("distillkit.recipe.load.find_recipes", lambda: shipped)
    assert find_recipe("sub/two") == shipped["sub/two"]
    (tmp_path / "my.yaml").write_text(RECIPE)
    assert find_recipe(tmp_path / "my.yaml") == tmp_path / "my.yaml"
    with pytest.raises(RecipeError) as caught:
        find_recipe("won")
    assert str(caught.value) == (
        "won: no such file, and no recipe of that name; did you mean 'one'? recipes: one, sub/two"
    )


RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_every_recipe_of_the_tree_is_valid_and_round_trips(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file).recipe
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_recipe(recipe))
    assert load_recipe(copy).recipe == recipe
    assert file.read_text().startswith("# "), "a recipe opens with what it does"


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipes_header_says_needs_figures_and_the_command(file: Path) -> None:
    head = file.read_text().partition("\n\n")[0]
    name = file.relative_to(ROOT).as_posix()
    for words in ("\n# Needs ", "\n# Figures ", f"distillkit run {name}", MODELINE):
        assert words in head, f"{name}: the header should have {words.strip()!r}"


def test_every_recipe_of_the_tree_is_found_by_name() -> None:
    assert sorted(find_recipes().values()) == RECIPES


def test_the_installed_plugins_work() -> None:
    assert installed().broken == []


UNREADABLE = [
    ("", "my.yaml: the recipe is empty"),
    ("# only words\n", "my.yaml: the recipe is empty"),
    ("- a\n- b\n", "my.yaml:1: a recipe is a mapping like `teacher: {...}`, not a list"),
    ("teacher", "my.yaml:1: a recipe is a mapping like `teacher: {...}`, not 'teacher'"),
    (b"\x89PNG\r\n\xff", "my.yaml: not a text file in UTF-8"),
    ("run: 1\x00", "my.yaml:1:7: a character that YAML forbids: #0"),
    ("run:\n\tbatch: 1\n", "my.yaml:2:1: not YAML: a tab; indent with spaces"),
    ("run: {batch: 1\nteacher: 2", "my.yaml:2:8: not YAML: while parsing a flow mapping, expected"),
    ("run: a: b", "my.yaml:1:7: not YAML: a second ': ' in the line, or wrong indentation"),
    ("run: 'a", "my.yaml:1:8: not YAML: while scanning a quoted scalar"),
    ("run: *x", "my.yaml:1:6: not YAML: found undefined alias 'x'"),
    ("run: 1\n---\nrun: 2", "my.yaml:2:1: not YAML: expected a single document"),
    ("[" * 1200, "my.yaml:1:1: nested too deeply"),
]


@pytest.mark.parametrize(("text", "report"), UNREADABLE)
def test_what_is_no_recipe_gets_a_sentence(text: str | bytes, report: str, tmp_path: Path) -> None:
    (line,) = problems(text, folder=tmp_path)
    assert line.startswith(report)


def test_a_missing_file_and_a_folder_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such file, and no recipe of that"):
        load_recipe(tmp_path / "nowhere.yaml", (), fake_plugins())
    with pytest.raises(RecipeError, match="can't be read: Is a directory"):
        load_recipe(tmp_path, (), fake_plugins())

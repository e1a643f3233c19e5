"""A valid recipe goes around unchanged; a broken one gets a sentence a problem, in place."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.configs import SOCKETS
from distillkit.recipe.copy import MODELINE
from distillkit.recipe.load import RecipeError, dump_recipe, find_recipe, find_recipes, load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import BrokenPlugin, installed
from distillkit.registry.registry import Origin

from .fakes import RECIPE, Distance, FakeRefinement, Hinge, RandomRefresh, fake_plugins


def load(text: str | bytes, *overrides: str, folder: Path) -> Recipe:
    file = folder / "my.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_recipe(file, overrides, fake_plugins()).recipe


def problems(text: str | bytes, *overrides: str, folder: Path) -> list[str]:
    """The report's lines, without the folder."""
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides, folder=folder)
    return str(caught.value).replace(f"{folder}/", "").split("\n")


# ---------------------------------------------------------------- valid recipes


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
        ("metrics=", "metrics", None),
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


RECIPES = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))


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
    name = file.relative_to(Path(__file__).parents[2]).as_posix()
    for words in ("\n# Needs ", "\n# Figures ", f"distillkit run {name}", MODELINE):
        assert words in head, f"{name}: the header should have {words.strip()!r}"


def test_every_recipe_of_the_tree_is_found_by_name() -> None:
    assert sorted(find_recipes().values()) == RECIPES


def test_the_installed_plugins_work() -> None:
    assert installed().broken == []


# ---------------------------------------------------------------- broken recipes

INSTALLED = "installed: never, random"
BROKEN = [
    # A line of the recipe, what stands there instead, and the start of the report's only line.
    ("batch: 16", "batch: 0", "17:7: run.batch: Input should be greater than or equal to 1; got 0 ("
     "Pictures a process and micro-batch)"),
    ("batch: 16", "batch: many", "17:7: run.batch: Input should be a valid integer"),
    ("batch: 16", "bacth: 16", "17:7: run.bacth: unknown field; did you mean 'batch'? fields: bat"),
    ("batch: 16", "1: 16", "17:7: run.1: unknown field; fields: batch, accumulate"),
    ("run: {batch: 16}", "run: 5", "17:1: run: should be a mapping of fields; got 5; fields: bat"),
    ("run: {", "runs: {", "17:1: runs: unknown field; did you mean 'run'? fields: requires, prom"),
    ("type: random", "type: randon", "7:11: refresh.type: no refresh 'randon'; did you mean "
     f"'random'? {INSTALLED}"),
    ("type: random", "type: off", f"7:11: refresh.type: no refresh 'off'; {INSTALLED}"),
    ("type: random", "type: false", "7:11: refresh.type: `type` should be a name, not False; if it "
     f"is one, put quotes around it; {INSTALLED}"),
    ("type: random", "type: 3", "7:11: refresh.type: `type` should be a name, not 3"),
    ("type: random", "type: ", "7:11: refresh.type: `type` should be a name, not None"),
    ("{type: random, ", "{", f"7:1: refresh: a refresh needs a `type`; {INSTALLED}"),
    ("{type: random, fraction: 0.02}", "random", "7:1: refresh: a refresh is a mapping like "
     f"{{type: NAME}}, not 'random'; {INSTALLED}"),
    ("{type: random, fraction: 0.02}", "off", "7:1: refresh: a refresh is a mapping like {type: "),
    ("fraction: 0.02", "fraction: 2", "7:25: refresh.fraction: Input should be less than or equal "
     "to 1; got 2 (Share of the pool that is replaced)"),
    ("fraction", "fractoin", "7:25: refresh.fractoin: unknown field; did you mean 'fraction'? "
     "fields: type, fraction"),
    ("type: hinge", "type: hing", "9:6: losses.0.type: no loss 'hing'; did you mean 'hinge'?"),
    ("power: l1", "power: l3", "10:22: losses.1.power: Input should be 'l1' or 'l2'; got 'l3'"),
    ("{type: distance, power: l1}", "distance", "10:5: losses.1: a loss is a mapping like {type: "),
    ("losses: [{type: distance}]", "losses: [{type: x}]", "12:32: warmup.losses.0.type: no loss '"),
    ("teacher: {type: fake, steps: 4}\n", "", "2:1: teacher: missing: The slow model; "
     "installed: fake"),
    ("  student: {lr: 1e-5}\n", "", "13:1: optim.student: missing: The student's optimizer"),
    ("lr: 1e-5", "betas: [0.9, 0.99]", "14:3: optim.student.lr: missing: Step size"),
    ("lr: 1e-5", "lr: 1e-5, betas: [0.9, 1]", "14:36: optim.student.betas.1: Input should be less "
     "than 1; got 1 (Decay of the first and second moments)"),
    ("stages: {1: 600", "stages: {one: 600", "11:35: refinement.stages.one: Input should be a "
     "valid integer"),
    ("stages: {1: 600", "stages: {1: x", "11:35: refinement.stages.1: Input should be a valid int"),
    ("[10, 250]", "[250, 10]", "6:20: pool.timesteps: timesteps should rise"),
    ("[10, 250]", "[10, 10]", "6:1: pool: timesteps should differ"),
    ("crop: 1.0", "crop: 0", "6:58: pool.views.whole.crop: Input should be greater than 0; got 0 ("
     "Side of the crop)"),
    ("crop: 1.0", "corp: 1", "6:58: pool.views.whole.corp: unknown field; did you mean 'crop'?"),
    ("[a cat, ", "[' ', ", "2:33: prompts.prompts.0: String should have at least 1 character"),
    ("run: {batch: 16}", "run: {batch: 16, batch: 8}", "17:18: run.batch: a second time; first on "
     "line 17"),
    ("run: {", "teacher: {type: fake}\nrun: {", "17:1: teacher: a second time; first on line 3"),
    ("batch: 16", "batch: !!python/name:os.system x", "17:14: the tag tag:yaml.org,2002:python/na"),
    ("# A recipe", "requires: [a-package-nobody-has>=1]\n# A recipe", "1:12: requires.0: "
     "a-package-nobody-has is not installed; install it: pip install 'a-package-nobody-has>=1'"),
    ("# A recipe", "requires: [pydantic<1]\n# A recipe", "1:12: requires.0: pydantic 2."),
    ("# A recipe", "requires: ['a b']\n# A recipe", "1:12: requires.0: 'a b' is not a package as "
     "pip takes it"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "report"), BROKEN)
def test_a_broken_recipe_gets_one_sentence(old: str, new: str, report: str, tmp_path: Path) -> None:
    assert RECIPE.count(old) == 1
    lines = problems(RECIPE.replace(old, new), folder=tmp_path)
    if "!!" not in new:  # what an unknown tag stands for is not known, so not valid either
        assert len(lines) == 1, lines
    assert any(line.startswith(f"my.yaml:{report}") for line in lines), lines


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


FLAGS = [
    ("run.batch=0", "run.batch: Input should be greater than or equal to 1; got 0"),
    ("run.bacth=1", "run.bacth: unknown field; did you mean 'batch'?"),
    ("refresh.type=randon", "refresh.type: no refresh 'randon'; did you mean 'random'?"),
    ("refresh={fraction: 1}", f"refresh: a refresh needs a `type`; {INSTALLED}"),
    ("losses.2.weight=1", "losses is a list with 2 items, counted from 0; there is no '2'"),
    ("losses.hinge.weight=1", "losses is a list with 2 items, counted from 0; there is no 'hinge'"),
    ("run.batch.x=1", "run.batch is 16; nothing can stand under it"),
    ("run.batch", "write --set a.b=c, like --set run.seed=1"),
    ("run..batch=1", "write --set a.b=c, like --set run.seed=1"),
    ("=1", "write --set a.b=c, like --set run.seed=1"),
    ("run.batch=[1", "not YAML: while parsing a flow sequence"),
    ("run={seed: 1, seed: 2}", "seed: a second time; first on line 1"),
    ("teacher=", "teacher: a teacher is a mapping like {type: NAME}, not None; installed: fake"),
]


@pytest.mark.parametrize(("flag", "report"), FLAGS)
def test_a_broken_flag_names_itself(flag: str, report: str, tmp_path: Path) -> None:
    (line,) = problems(RECIPE, flag, folder=tmp_path)
    assert line.startswith(f"--set {flag}: {report}")


def test_every_problem_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = RECIPE.replace("batch: 16", "batch: 0, batch: 1").replace("steps: 4", "steps: 0")
    text = text.replace("type: random", "type: x").replace("lr: 1e-5", "lr: 0")
    lines = problems(text, "run.seed=-1", "nonsense", "run.keep_checkpoints=0", folder=tmp_path)
    assert [line.split(" ")[0] for line in lines[:5]] == [
        f"my.yaml:{place}:" for place in ("3:23", "7:11", "14:13", "17:7", "17:17")
    ]
    assert {line.partition(":")[0] for line in lines[5:]} == {
        "--set run.seed=-1",
        "--set nonsense",
        "--set run.keep_checkpoints=0",
    }
    assert len(lines) == 8


def test_an_unknown_part_brings_up_plugins_that_are_broken_or_left_out(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    plugins = fake_plugins()
    plugins.disabled.append(Origin("ours", "distillkit-ours", "1.0"))
    plugins.broken.append(BrokenPlugin(Origin("theirs", "distillkit-theirs", "2.0"), "no licence"))
    file.write_text(RECIPE.replace("type: random", "type: theirs"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, (), plugins)
    assert str(caught.value).split("\n")[1:] == [
        "note: plugin 'theirs' (distillkit-theirs 2.0) is broken: no licence",
        "note: plugin 'ours' (distillkit-ours 1.0) is left out by DISTILLKIT_DISABLED_PLUGINS",
    ]
    file.write_text(RECIPE.replace("batch: 16", "batch: 0"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, (), plugins)
    assert "note" not in str(caught.value)


def test_a_missing_file_and_a_folder_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such file, and no recipe of that"):
        load_recipe(tmp_path / "nowhere.yaml", (), fake_plugins())
    with pytest.raises(RecipeError, match="can't be read: Is a directory"):
        load_recipe(tmp_path, (), fake_plugins())

"""A broken recipe gets a sentence a problem, at its line or flag, all of them at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import AfterValidator, ValidationInfo, field_validator, model_validator

from distillkit.configs import RefreshConfig
from distillkit.errors import UserError
from distillkit.recipe.load import RecipeError, load_recipe
from distillkit.recipe.preflight import preflight
from distillkit.registry.entry_points import BrokenPlugin
from distillkit.registry.registry import Origin
from tests.distillkit.fakes import RECIPE, Fake, fake_plugins, problems

INSTALLED = "installed: never, random"
BROKEN = [
    # A line of the recipe, what stands there instead, and the start of the report's only line.
    ("batch: 16", "batch: 0", "17:7: run.batch: Input should be greater than or equal to 1; got 0 ("
     "Pictures a process and micro-batch)"),
    ("batch: 16", "batch: many", "17:7: run.batch: Input should be a valid integer"),
    ("batch: 16", "batch: true", "17:7: run.batch: should be a number, not true"),
    ("lr: 1e-5", "lr: false", "14:13: optim.student.lr: should be a number, not false"),
    ("lr: 1e-5", "lr: 1e-5, clip: true", "14:23: optim.student.clip: should be a number, not tru"),
    ("lr: 1e-5", "lr: 1e-5, betas: [0.9, true]", "14:36: optim.student.betas.1: should be a numbe"),
    ("fraction: 0.02", "fraction: true", "7:25: refresh.fraction: should be a number, not true"),
    ("stages: {1: 600", "stages: {1: true", "11:35: refinement.stages.1: should be a number, not "),
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
    ("teacher: {type: example, side: 4}\n", "", "2:1: teacher: missing: The slow model; "
     "installed: example"),
    ("  student: {lr: 1e-5}\n", "", "13:1: optim.student: missing: The student's optimizer"),
    ("lr: 1e-5", "betas: [0.9, 0.99]", "14:3: optim.student.lr: missing: Learning rate"),
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
    ("run: {", "teacher: {type: example}\nrun: {", "17:1: teacher: a second time; first on line 3"),
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


FLAGS = [
    ("run.batch=0", "run.batch: Input should be greater than or equal to 1; got 0"),
    ("run.bacth=1", "run.bacth: unknown field; did you mean 'batch'?"),
    ("refresh.type=randon", "refresh.type: no refresh 'randon'; did you mean 'random'?"),
    ("refresh={fraction: 1}", f"refresh: a refresh needs a `type`; {INSTALLED}"),
    ("losses.2.weight=1", "losses is a list with 2 items, counted from 0; there is no '2'"),
    ("losses.hinge.weight=1", "losses is a list with 2 items, counted from 0; there is no 'hinge'"),
    ("run.batch.x=1", "run.batch is 16; it has no fields"),
    ("run.batch", "write --set a.b=c, like --set run.seed=1"),
    ("run..batch=1", "write --set a.b=c, like --set run.seed=1"),
    ("=1", "write --set a.b=c, like --set run.seed=1"),
    ("run.batch=[1", "not YAML: while parsing a flow sequence"),
    ("run={seed: 1, seed: 2}", "seed: a second time; first on line 1"),
    ("teacher=", "teacher: a teacher is a mapping like {type: NAME}, not None; installed: example"),
]


@pytest.mark.parametrize(("flag", "report"), FLAGS)
def test_a_broken_flag_names_itself(flag: str, report: str, tmp_path: Path) -> None:
    (line,) = problems(RECIPE, flag, folder=tmp_path)
    assert line.startswith(f"--set {flag}: {report}")


def _halve(value: int) -> int:
    return 100 // value


class Hasty(Fake, RefreshConfig):
    """Validators that raise something else than ValueError."""

    type: Literal["hasty"] = "hasty"
    every: Annotated[int, AfterValidator(_halve)] = 1
    first: str = ""
    second: str = ""
    crash: str = ""

    @field_validator("second")
    @classmethod
    def _second(cls, value: str, info: ValidationInfo) -> str:
        return value + str(info.data["third"])

    @model_validator(mode="after")
    def _whole(self) -> Hasty:
        if self.crash == "user":
            raise UserError("a sentence of its own")
        if self.crash:
            raise RuntimeError(self.crash)
        return self


HASTY = [
    ("every: 0", "7:24: refresh.every: {} ZeroDivisionError: integer division or modulo by zero ("),
    ("first: a, second: b", "7:34: refresh.second: {} KeyError: 'third' ("),
    ("every: 2, crash: now", "7:1: refresh: {} RuntimeError: now ("),
    ("crash: user", "7:1: refresh: a sentence of its own"),
]


@pytest.mark.parametrize(("fields", "report"), HASTY)
def test_a_validator_that_fails_is_a_problem_at_its_field(
    fields: str, report: str, tmp_path: Path
) -> None:
    plugins, file = fake_plugins(), tmp_path / "my.yaml"
    plugins.registry.add(Hasty, Origin("hasty", "distillkit-hasty", "1.0"))
    file.write_text(RECIPE.replace("type: random, fraction: 0.02", f"type: hasty, {fields}"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(file, ("run.batch=0",), plugins)
    line, other = str(caught.value).splitlines()
    failed = "a validator of plugin 'hasty' (distillkit-hasty 1.0) failed:"
    assert line.startswith(f"{file}:{report.format(failed)}")
    assert "user" in fields or line.partition(f"({__file__}:")[2]
    assert other.startswith("--set run.batch=0: run.batch: Input should be greater")


def test_aliases_within_aliases_are_bounded(tmp_path: Path) -> None:
    """Nine levels of nine are 387 million values in 300 characters."""
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    began = time.perf_counter()
    [line] = problems("\n".join(levels), folder=tmp_path)
    said = "more than 100,000 values; aliases within aliases multiply, and many prompts belong"
    assert line.startswith(f"my.yaml:1:1: {said}")
    [line] = problems(RECIPE, "prompts.prompts=" + flow(levels), folder=tmp_path)
    assert said in line
    assert time.perf_counter() - began < 10


def test_levels_of_a_flag_are_bounded(tmp_path: Path) -> None:
    """Two thousand of them took over 15 seconds."""
    [line] = problems(RECIPE, ".".join(["a"] * 2000) + "=1", folder=tmp_path)
    assert line.endswith("...: the field has 2000 levels, and at most 32 are read")
    assert len(line) < 200


def test_a_file_that_is_no_recipe_is_not_read_to_its_end(tmp_path: Path) -> None:
    """Weights that are named by mistake."""
    weights = tmp_path / "model.safetensors"
    with weights.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RecipeError, match=r"more than 8 MB, so this is no recipe"):
        load_recipe(weights, (), fake_plugins())
    with pytest.raises(RecipeError, match=r"^xxxx.*: File name too long"):
        load_recipe("x" * 5000, (), fake_plugins())


def test_every_weight_at_zero_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(RECIPE)
    zero = ("losses.0.weight=0", "losses.1.weight=0")
    said = "losses: every weight is 0, so that nothing would train"
    with pytest.raises(RecipeError, match=said):
        preflight(load_recipe(file, zero, fake_plugins()))
    assert said not in "".join(preflight(load_recipe(file, zero[:1], fake_plugins())))


def flow(levels: list[str]) -> str:
    return "{" + ", ".join(levels) + "}"


def test_every_problem_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = RECIPE.replace("batch: 16", "batch: 0, batch: 1").replace("side: 4", "side: 0")
    text = text.replace("type: random", "type: x").replace("lr: 1e-5", "lr: 0")
    lines = problems(text, "run.seed=-1", "nonsense", "run.keep_checkpoints=0", folder=tmp_path)
    assert [line.split(" ")[0] for line in lines[:5]] == [
        f"my.yaml:{place}:" for place in ("3:26", "7:11", "14:13", "17:7", "17:17")
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

"""What `check` tells of a recipe that is valid and could not run: of parts that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.recipe.load import RecipeError, load_recipe
from distillkit.recipe.preflight import preflight

RECIPE = Path(__file__).parents[2] / "recipes" / "nitro_shapes.yaml"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "critics.one-step.pool.heads_per_slot=1000000000",
            "critics.one-step.pool.heads_per_slot: makes 72,000,000,000 heads, and at most "
            "1,000,000 can be held",
        ),
        (
            "critics.one-step.steps=[2] warmup.critic=0",
            "refinement.stages: no critic judges roll-outs of length 1; see `steps` of each",
        ),
        (
            "losses.0.steps=[1,4]",
            "refinement.stages: no loss trains roll-outs of length 2; see `steps` of each",
        ),
        ("losses.0.steps=[2,1]", "losses.0.steps: should rise, like [1, 2]"),
        ("teacher.guidance=3", "samples of another teacher (see its index.json); name another fo"),
        ("samples.count=64", "samples of another count (see its index.json); name another folder"),
        (f"samples.cache={RECIPE}", "nitro_shapes.yaml is a file; name a folder"),
        ("run.trackers=[nobodys]", "'nobodys' is not installed, or accelerate does not know it"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_built(change: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        preflight(load_recipe(RECIPE, change.split()))
    [line] = str(caught.value).splitlines()
    assert said in line


def test_critics_that_would_warm_up_on_nothing_are_told() -> None:
    sets = ("losses=[{type: relativistic-paired, steps: [2]}]", "refinement.stages={2: 8}")
    with pytest.raises(RecipeError, match=r"warmup\.critic: .* and no loss trains those"):
        preflight(load_recipe(RECIPE, sets))
    preflight(load_recipe(RECIPE, (*sets, "warmup.critic=0")))


@pytest.mark.parametrize(
    "prompts", ["{type: list, prompts: [a]}", f"{{type: text, path: {RECIPE}}}"]
)
def test_prompts_without_pictures(prompts: str) -> None:
    sets = ("samples.real=pictures", "samples.cache=", f"prompts={prompts}")
    with pytest.raises(RecipeError, match=r"asks for the prompts' own pictures, and '(list|text)'"):
        preflight(load_recipe(RECIPE, sets))
    preflight(load_recipe(RECIPE, ("samples.real=pictures",)))  # the world draws them


def test_what_holds_of_three_critics_is_said_once() -> None:
    [note] = [n for n in preflight(load_recipe(RECIPE)) if "hears nothing of the prompt" in n]
    places = [f"critics.{name}.pool.levels" for name in ("one-step", "two-steps", "four-steps")]
    assert note.startswith(f"{', '.join(places)}: level 0 hears nothing")

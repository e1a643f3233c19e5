"""What is shown of a part is what is validated; editors get the same, of every part."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import Field

from distillkit import configs
from distillkit.errors import UserError
from distillkit.recipe import describe as handbook
from distillkit.recipe import yaml12 as recipe_yaml
from distillkit.recipe.json_schema import recipe_schema
from distillkit.recipe.load import find_recipes
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import installed
from distillkit.registry.registry import Entry, Origin

from .fakes import RECIPE, fake_plugins


class Inner(configs.Config):
    share: float = Field(0.5, gt=0, lt=1)
    """A share."""


class Varied(configs.LossConfig):
    """One field of every kind."""

    type: Literal["varied"] = "varied"
    label: str
    """A label."""
    norm: Literal["l1", "l2"] = "l2"
    steps: list[Annotated[int, Field(ge=0, le=999)]] = Field([1], min_length=1)
    pair: tuple[int, int] = (1, 2)
    stages: dict[int, int] = Field(min_length=1, examples=[{1: 5}])
    inner: Inner | None = None
    size: int = Field(64, ge=16, multiple_of=8)
    flag: bool = False
    rate: float = Field(gt=0)

    def build(self, *args: Any) -> Any: ...


def test_fields_say_type_bounds_default_and_meaning() -> None:
    cards = {card.name: card for card in handbook.fields(Varied)}
    assert {name: (card.kind, card.default) for name, card in cards.items()} == {
        "weight": ("number, at least 0", "1.0"),
        "label": ("text", "required"),
        "norm": ("l1 or l2", "l2"),
        "steps": ("list of 1 or more (whole number, 0 to 999)", "[1]"),
        "pair": ("list of 2 (whole number)", "[1, 2]"),
        "stages": ("mapping of 1 or more keys to (whole number)", "required"),
        "inner": ("mapping with the fields below or none", "null"),
        "inner.share": ("number, above 0, below 1", "0.5"),
        "size": ("whole number, at least 16, a multiple of 8", "64"),
        "flag": ("true or false", "false"),
        "rate": ("number, above 0", "required"),
    }
    assert cards["label"].meaning == "A label."
    assert cards["inner.share"].meaning == "A share."


def test_a_snippet_has_examples_and_the_least_for_what_is_required() -> None:
    """It is over 96 characters in one line, so a field takes a line."""
    assert handbook.snippet(Varied) == (
        "losses:\n  - type: varied\n    weight: 1.0\n    label: '...'\n    norm: l2\n"
        "    steps: [1]\n    pair: [1, 2]\n    stages: {1: 5}\n    size: 64\n    flag: false\n"
        "    rate: 1.0"
    )


def everyone() -> list[Entry]:
    return [e for e in installed().registry.entries() if handbook.recipe_field(e.socket)]


@pytest.mark.parametrize("entry", everyone(), ids=lambda entry: f"{entry.socket}-{entry.name}")
def test_the_snippet_of_every_installed_part_validates(entry: Entry) -> None:
    value = recipe_yaml.parse(handbook.snippet(entry.config)).value
    ((owner, part),) = value.items()
    part = part[0] if owner == "losses" else part
    assert entry.config.model_validate(part).name() == entry.name
    assert all(card.meaning for card in handbook.fields(entry.config))


def test_a_name_in_several_sockets_asks_which() -> None:
    registry = fake_plugins().registry
    assert handbook.find_part(registry, "random").socket == "refresh"
    assert handbook.find_part(registry, "fake", "pool").socket == "pool"
    with pytest.raises(UserError, match="'fake' names 6 parts; say which: --socket teacher or"):
        handbook.find_part(registry, "fake")
    with pytest.raises(UserError, match="no part 'randon'; did you mean 'random'"):
        handbook.find_part(registry, "randon")
    with pytest.raises(UserError, match="no pool 'random'; installed: fake"):
        handbook.find_part(registry, "random", "pool")
    with pytest.raises(UserError, match="no socket 'pol'; did you mean 'pool'"):
        handbook.find_part(registry, "fake", "pol")


def wrong_with(recipe: Any, found: Any) -> list[str]:
    schema = json.loads(recipe_schema(found.registry))
    Draft202012Validator.check_schema(schema)
    # Keys of JSON are strings, as an editor takes those of YAML.
    value = json.loads(json.dumps(recipe))
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(value)]


def test_the_schema_takes_what_is_valid_and_places_what_is_not() -> None:
    recipe = recipe_yaml.parse(RECIPE).value
    assert wrong_with(recipe, fake_plugins()) == []
    recipe["run"]["batch"] = 0
    recipe["refresh"]["type"] = "randon"
    recipe["losses"][1]["powr"] = "l1"
    del recipe["teacher"]["type"]
    places = wrong_with(recipe, fake_plugins())
    assert sorted(places) == ["$.losses[1]", "$.refresh", "$.run.batch", "$.teacher"]


def test_the_schema_knows_a_part_that_a_third_party_brings() -> None:
    recipe = recipe_yaml.parse(RECIPE).value
    recipe["losses"] = [{"type": "varied", "label": "a", "stages": {1: 2}, "rate": 1e-3}]
    found = fake_plugins()
    assert wrong_with(recipe, found) == ["$.losses[0]"]
    found.registry.add(Varied, Origin("theirs"))
    assert wrong_with(recipe, found) == []
    assert Recipe.model_validate(recipe, context={"registry": found.registry})


@pytest.mark.parametrize("path", find_recipes().values(), ids=lambda path: path.stem)
def test_the_schema_takes_every_shipped_recipe(path: Any) -> None:
    value = recipe_yaml.parse(path.read_text(encoding="utf-8")).value
    assert wrong_with(value, installed()) == []

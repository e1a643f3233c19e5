"""The schema for editors takes what is valid, places what is not, and knows every part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from distillkit.recipe.json_schema import recipe_schema
from distillkit.recipe.load import find_recipes
from distillkit.recipe.schema import Recipe
from distillkit.recipe.yaml12 import parse
from distillkit.registry.entry_points import installed
from distillkit.registry.registry import Origin
from tests.distillkit.fakes import RECIPE, Varied, fake_plugins


def wrong_with(recipe: Any, found: Any) -> list[str]:
    schema = json.loads(recipe_schema(found.registry))
    Draft202012Validator.check_schema(schema)
    # Keys of JSON are strings, as an editor takes those of YAML.
    value = json.loads(json.dumps(recipe))
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(value)]


def test_the_schema_takes_what_is_valid_and_places_what_is_not() -> None:
    recipe = parse(RECIPE).value
    assert wrong_with(recipe, fake_plugins()) == []
    recipe["run"]["batch"] = 0
    recipe["refresh"]["type"] = "randon"
    recipe["losses"][1]["powr"] = "l1"
    del recipe["teacher"]["type"]
    places = wrong_with(recipe, fake_plugins())
    assert sorted(places) == ["$.losses[1]", "$.refresh", "$.run.batch", "$.teacher"]


def test_the_schema_knows_a_part_that_a_third_party_brings() -> None:
    recipe = parse(RECIPE).value
    recipe["losses"] = [{"type": "varied", "label": "a", "stages": {1: 2}, "rate": 1e-3}]
    found = fake_plugins()
    assert wrong_with(recipe, found) == ["$.losses[0]"]
    found.registry.add(Varied, Origin("theirs"))
    assert wrong_with(recipe, found) == []
    assert Recipe.model_validate(recipe, context={"registry": found.registry})


def fields_of(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every property of the schema, with its place."""
    if isinstance(schema, dict):
        for name, field in schema.get("properties", {}).items():
            yield f"{path}.{name}", field
        for name, value in schema.items():
            yield from fields_of(value, f"{path}.{name}")
    elif isinstance(schema, list):
        for n, value in enumerate(schema):
            yield from fields_of(value, f"{path}.{n}")


def test_every_field_of_a_recipe_and_of_every_part_says_what_it_is() -> None:
    """Beside a reference too: pydantic drops a text there that is the model's own."""
    fields = dict(fields_of(json.loads(recipe_schema(installed().registry))))
    assert len(fields) > 200
    assert [place for place, field in fields.items() if not field.get("description")] == []


@pytest.mark.parametrize("path", find_recipes().values(), ids=lambda path: path.stem)
def test_the_schema_takes_every_shipped_recipe(path: Any) -> None:
    value = parse(path.read_text(encoding="utf-8")).value
    assert wrong_with(value, installed()) == []

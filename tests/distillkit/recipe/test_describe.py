"""What is shown of a part is what is validated."""

from __future__ import annotations

import pytest

from distillkit.errors import UserError
from distillkit.recipe.describe import fields, find_part, recipe_field, snippet
from distillkit.recipe.yaml12 import parse
from distillkit.registry.entry_points import installed
from distillkit.registry.registry import Entry
from tests.distillkit.fakes import Varied, fake_plugins


def test_fields_say_type_bounds_default_and_meaning() -> None:
    cards = {card.name: card for card in fields(Varied)}
    assert {name: (card.kind, card.default) for name, card in cards.items()} == {
        "weight": ("number, at least 0", "1.0"),
        "ramp": ("whole number, at least 0", "0"),
        "steps": ("list of (whole number, 1 to 4)", "[]"),
        "label": ("text", "required"),
        "norm": ("l1 or l2", "l2"),
        "levels": ("list of 1 or more (whole number, 0 to 999)", "[1]"),
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
    assert snippet(Varied) == (
        "losses:\n  - type: varied\n    weight: 1.0\n    ramp: 0\n    steps: []\n    label: '...'\n"
        "    norm: l2\n    levels: [1]\n    pair: [1, 2]\n    stages: {1: 5}\n    size: 64\n"
        "    flag: false\n    rate: 1.0"
    )


def everyone() -> list[Entry]:
    return [e for e in installed().registry.entries() if recipe_field(e.socket)]


@pytest.mark.parametrize("entry", everyone(), ids=lambda entry: f"{entry.socket}-{entry.name}")
def test_the_snippet_of_every_installed_part_validates(entry: Entry) -> None:
    value = parse(snippet(entry.config)).value
    ((owner, part),) = value.items()
    part = part[0] if owner == "losses" else part
    assert entry.config.model_validate(part).name() == entry.name
    assert all(card.meaning for card in fields(entry.config))


def test_a_name_in_several_sockets_asks_which() -> None:
    registry = fake_plugins().registry
    assert find_part(registry, "random").socket == "refresh"
    assert find_part(registry, "example", "student").socket == "student"
    with pytest.raises(UserError, match="'example' names 4 parts; say which: --socket teacher or"):
        find_part(registry, "example")
    with pytest.raises(UserError, match="no part 'randon'; did you mean 'random'"):
        find_part(registry, "randon")
    with pytest.raises(UserError, match="no pool 'random'; installed: fake"):
        find_part(registry, "random", "pool")
    with pytest.raises(UserError, match="no socket 'pol'; did you mean 'pool'"):
        find_part(registry, "fake", "pol")

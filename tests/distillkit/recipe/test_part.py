"""`Part` in a model of its own: lookup, dump, and messages without a recipe's file."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distillkit.configs import Config, RefreshConfig
from distillkit.recipe.part import Part
from tests.distillkit.fakes import Never, RandomRefresh, fake_plugins


class Holder(Config):
    refresh: Part[RefreshConfig]
    more: list[Part[RefreshConfig]] = []
    maybe: Part[RefreshConfig] | None = None


def hold(**fields: Any) -> Holder:
    return Holder.model_validate(fields, context={"registry": fake_plugins().registry})


def test_a_part_becomes_the_class_that_its_type_names() -> None:
    held = hold(refresh={"type": "random", "fraction": 0.5}, more=[{"type": "never"}])
    assert held.refresh == RandomRefresh(fraction=0.5)
    assert held.more == [Never()]
    assert held.maybe is None


def test_an_instance_passes_through() -> None:
    part = RandomRefresh(fraction=0.5)
    assert hold(refresh=part).refresh is part


def test_a_dump_keeps_the_subclass_fields_and_validates_again() -> None:
    held = hold(refresh={"type": "random", "fraction": 0.5}, maybe={"type": "random"})
    dumped = held.model_dump()
    assert dumped["refresh"] == {"type": "random", "fraction": 0.5}
    assert dumped["maybe"] == {"type": "random", "fraction": 0.01}
    assert hold(**dumped) == held
    assert '"fraction":0.5' in held.model_dump_json()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "randon"}, "type: no refresh 'randon'; did you mean 'random'?"),
        ({"type": False}, "type: `type` should be a name, not False; if it is one, put quotes"),
        ({"fraction": 1}, "a refresh needs a `type`; installed: never, random"),
        ("random", "a refresh is a mapping like {type: NAME}, not 'random'; installed: never"),
        (None, "a refresh is a mapping like {type: NAME}, not None"),
        ({"type": "random", "fraction": 2, "x": 1}, "refresh 'random': fraction: Input should be"),
        ({"type": "random", "fraction": 2, "x": 1}, "; x: Extra inputs are not permitted"),
    ],
)
def test_without_a_file_the_message_is_readable_too(value: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        hold(refresh=value)
    assert message in str(caught.value)

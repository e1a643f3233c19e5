"""Names, duplicates, suggestions, and `Part` in a model of its own."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from distillkit.configs import Config, RefreshConfig
from distillkit.registry import (
    DuplicatePartError,
    Origin,
    Part,
    Registry,
    UnknownPartError,
)

from .fakes import Never, RandomRefresh, fake_plugins


class Holder(Config):
    refresh: Part[RefreshConfig]
    more: list[Part[RefreshConfig]] = []
    maybe: Part[RefreshConfig] | None = None


def hold(**fields: Any) -> Holder:
    return Holder.model_validate(fields, context={"registry": fake_plugins().registry})


def test_a_name_that_two_plugins_bring_names_both_and_stays_with_the_first() -> None:
    registry = Registry()
    registry.add(Never, Origin("mine", "distillkit-mine", "1.0"))
    with pytest.raises(DuplicatePartError) as caught:
        registry.add(Never, Origin("yours", "distillkit-yours", "2.1"))
    assert str(caught.value).startswith(
        "refresh 'never' is brought by plugin 'mine' (distillkit-mine 1.0) "
        "and by plugin 'yours' (distillkit-yours 2.1); the first keeps the name"
    )
    assert registry.get("refresh", "never").origin.plugin == "mine"


def test_one_name_may_stand_in_several_sockets() -> None:
    registry = fake_plugins().registry
    assert registry.get("teacher", "fake").config is not registry.get("student", "fake").config


def test_an_unknown_name_gets_a_guess_and_the_list() -> None:
    with pytest.raises(UnknownPartError) as caught:
        fake_plugins().registry.get("refresh", "Randon")
    said = str(caught.value)
    assert said == "no refresh 'Randon'; did you mean 'random'? installed: never, random"


def test_nothing_installed_is_said() -> None:
    with pytest.raises(UnknownPartError, match="no pool 'dynamic'; installed: none"):
        Registry().get("pool", "dynamic")


def test_entries_stand_in_the_order_of_a_recipe() -> None:
    sockets = [entry.socket for entry in fake_plugins().registry.entries()]
    assert sockets == sorted(sockets, key=sockets.index)
    assert sockets[0] == "teacher"
    assert sockets[-1] == "metrics"


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

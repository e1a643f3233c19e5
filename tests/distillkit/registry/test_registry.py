"""Names, duplicates, suggestions."""

from __future__ import annotations

import pytest

from distillkit.registry.registry import DuplicatePartError, Origin, Registry, UnknownPartError
from tests.distillkit.fakes import Never, fake_plugins


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
    assert (
        registry.get("teacher", "example").config is not registry.get("student", "example").config
    )


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

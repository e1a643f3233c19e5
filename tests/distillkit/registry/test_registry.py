"""Names, duplicates, suggestions."""

from __future__ import annotations

import pytest

from distillkit.registry.registry import DuplicatePartError, Origin, Registry, UnknownPartError
from tests.distillkit.fakes import Never, fake_plugins

MINE = Origin("mine", "distillkit-mine", "1.0")
YOURS = Origin("yours", "distillkit-yours", "2.1")


def test_a_name_that_two_plugins_bring_belongs_to_neither() -> None:
    registry = Registry()
    registry.add(Never, MINE)
    with pytest.raises(DuplicatePartError) as added:
        registry.add(Never, YOURS)
    with pytest.raises(UnknownPartError) as asked:
        registry.get("refresh", "never")
    for caught in (added, asked):
        assert str(caught.value) == (
            "refresh 'never' is brought by plugin 'mine' (distillkit-mine 1.0) and by plugin "
            "'yours' (distillkit-yours 2.1). Uninstall one of them, or leave one out with "
            "DISTILLKIT_DISABLED_PLUGINS"
        )


def test_a_built_in_name_stays_where_it_is() -> None:
    registry = Registry()
    registry.add(Never, Origin("nitrofusion", "distillkit", "0.1.0"))
    with pytest.raises(DuplicatePartError) as caught:
        registry.add(Never, MINE)
    assert str(caught.value) == (
        "refresh 'never' is brought by plugin 'nitrofusion' (distillkit 0.1.0) and by plugin "
        "'mine' (distillkit-mine 1.0); a built-in name can't be replaced: choose another name for "
        "yours"
    )
    assert registry.get("refresh", "never").origin.is_built_in
    assert registry.origin(Never) == Origin("nitrofusion", "distillkit", "0.1.0")


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

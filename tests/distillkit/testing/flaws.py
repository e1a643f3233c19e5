"""Wrong parts: an example of which one thing is changed, and what the checks say of it."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from distillkit import testing
from distillkit.configs import ComponentConfig

Flaws = dict[str, tuple[ComponentConfig, str]]
"""What is wrong -> the part, and what its finding should contain."""


def flawed(base: type[ComponentConfig], **changes: Any) -> ComponentConfig:
    """The example, whose part has other attributes. A function takes the sound one first."""

    class Flawed(base):  # type: ignore[misc, valid-type]
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            for name, change in changes.items():
                if callable(change):
                    change = _bind(change, getattr(part, name))
                object.__setattr__(part, name, change)  # some parts are frozen dataclasses
            return part

    return Flawed()


def rebuilt(base: type[ComponentConfig], change: Any) -> ComponentConfig:
    """The example, whose `build` gives `change(part, *arguments)`."""

    class Rebuilt(base):  # type: ignore[misc, valid-type]
        def build(self, *args: Any) -> Any:
            return change(super().build(*args), *args)

    return Rebuilt()


def without(base: type[ComponentConfig], *names: str) -> ComponentConfig:
    """The example, whose part lacks methods."""

    def cut(part: Any, *_: Any) -> Any:
        rest = {n: getattr(part, n) for n in dir(part) if n not in names and n[0] != "_"}
        return type("Cut", (), {n: _bind(lambda s, _, *a: s(*a), v) for n, v in rest.items()})()

    return rebuilt(base, cut)


def _bind(change: Any, sound: Any) -> Any:
    return lambda *args: change(sound, *args)


def scribbling(sound: Any, x_BCHW: Tensor, *args: Any) -> Any:
    """Writes into what it is given."""
    x_BCHW.data.mul_(2)
    return sound(x_BCHW, *args)


def said_of(config: ComponentConfig, **given: Any) -> str:
    """The findings of a part that breaks its contract."""
    with pytest.raises(AssertionError) as caught:
        testing.check(config, **given)
    said = str(caught.value)
    assert said.startswith(f"{config.socket} '{config.name()}' breaks its contract:\n  ")
    assert "Traceback" not in said
    return said


def table(flaws: Flaws) -> Any:
    """Parameters of a test: `config`, `finding`."""
    values = [pytest.param(*flaw, id=name) for name, flaw in flaws.items()]
    return pytest.mark.parametrize(("config", "finding"), values)

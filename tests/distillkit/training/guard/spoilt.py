"""Parts of the examples that break their contract, and what a run says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.configs import ComponentConfig
from distillkit.training.guard import PartError
from tests.distillkit.world import brought_by_theirs, everything, trainer, world_recipe

Change = Callable[[Any], Any]


def torn(*_: Any, **__: Any) -> Any:
    """In the place of a method, or as a change of what it returns."""
    raise RuntimeError("no such thing")


TORN = f"RuntimeError: no such thing ({__file__}:{torn.__code__.co_firstlineno + 2})"
"""How a sentence ends that tells of it."""


def spoilt(base: type[ComponentConfig], method: str, change: Change) -> ComponentConfig:
    """The config of an example whose method's result goes through `change`."""

    class Spoilt(base):  # type: ignore[valid-type, misc]
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            inner = getattr(part, method)
            call = lambda *given, **named: change(inner(*given, **named))  # noqa: E731
            object.__setattr__(part, method, call)  # some parts are frozen dataclasses
            return part

    return Spoilt()


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, part: ComponentConfig) -> str:
    """The sentence of a run with this part, in its first iteration; nothing has moved by then."""
    brought_by_theirs(monkeypatch, part)
    place = {"losses": [part]} if part.socket == "loss" else {part.socket: part}
    run = trainer(world_recipe(**place), folder)
    before = everything(run)
    with pytest.raises(PartError) as caught:
        run.step(0)
    after = everything(run)
    if part.socket != "refresh":
        assert all(torch.equal(after[name], v) for name, v in before.items())
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence

"""Parts of the examples that break their contract, and what a run says of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit import api
from distillkit.configs import ComponentConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.training.guard import PartError
from tests.distillkit.world import THEIRS, brought_by_theirs, everything, trainer, world_recipe

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


class Words:
    """Prompts whose first one is what it is told."""

    def __init__(self, read: Callable[[int], Any]) -> None:
        self.read = read

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return self.read(index)


def made(base: type[ComponentConfig], build: Callable[..., Any]) -> ComponentConfig:
    """The config of an example that builds something else."""

    class Made(base):  # type: ignore[valid-type, misc]
        def build(self, *args: Any) -> Any:
            return build()

    return Made()


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


def sentence(
    monkeypatch: pytest.MonkeyPatch, folder: Path, part: ComponentConfig, real: str = "teacher"
) -> str:
    """What a run of two iterations with this part, and its evaluation, is ended with."""
    brought_by_theirs(monkeypatch, part)
    fields: dict[str, Any] = {
        "refinement": {"type": "fixed", "steps": 2, "iterations": 2},
        "metrics": ExampleMetricsConfig(num_images=2),
    }
    place = {"losses": [part]} if part.socket == "loss" else {part.socket: part}
    with pytest.raises(PartError) as caught:
        api.train(world_recipe(samples={"real": real}, **fields | place), folder)
    said = str(caught.value)
    assert "\n" not in said
    return said.removeprefix(f"{part.socket} 'example' {THEIRS} ")

"""What refresh policies, refinements, prompts and configs can get wrong, told in sentences."""

from __future__ import annotations

import random
from typing import Any, Literal

import pytest
import torch
from pydantic import Field

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.prompts import ExamplePromptsConfig
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.examples.refresh import ExampleRefreshConfig
from distillkit.remarks import Remark
from tests.distillkit.testing.flaws import Flaws, flawed, rebuilt, said_of, table


def steps(change: Any, iterations: int = 5) -> ComponentConfig:
    return flawed(ExampleRefinementConfig, steps=change, iterations=iterations)


def stages(change: Any) -> ComponentConfig:
    return flawed(ExampleRefinementConfig, stage=change, iterations=5)


def growing() -> Any:
    """One step more each time that it moves on."""
    seen: list[int] = []

    def change(sound: Any, i: int, generator: Any) -> int:
        seen.extend([i] * (i not in seen))
        return min(len(seen), 4)

    return change


REFINEMENTS: Flaws = {
    "no iterations": (flawed(ExampleRefinementConfig, iterations=0), "0 leaves nothing to train"),
    "a share": (flawed(ExampleRefinementConfig, iterations=5.0), "iterations: 5.0 leaves nothing"),
    "five steps": (steps(lambda *a: 5), "5 in iteration 0; a roll-out has 1 to 4 steps"),
    "no step": (steps(lambda s, i, g: i), "steps(): 0 in iteration 0; a roll-out has 1 to 4"),
    "five steps at last": (
        steps(lambda s, i, g: 1 + 4 * (i > 5000), 9000),
        "5 in iteration 50",
    ),
    "a tensor": (steps(lambda *a: torch.tensor(2)), "steps(): tensor(2) in iteration 0"),
    "global generator": (
        steps(lambda s, i, g: int(torch.randint(1, 5, ())), 100),
        "differs between two calls with the same generator",
    ),
    "memory": (steps(growing()), "iteration 2 depends on which were asked for before"),
    "back again": (stages(lambda s, i: "ab"[i % 2]), "comes back after another one: a, b, a"),
    "a stage an iteration": (
        flawed(ExampleRefinementConfig, stage=lambda s, i: f"{i:04d}"),
        "stage(): 500 stages, such as '0000' and '0001': each ends with a snapshot",
    ),
    "a path": (
        stages(lambda s, i: "a/b"),
        "stage() in iteration 0 returned 'a/b': a stage's name is",
    ),
    "a hidden file": (
        stages(lambda s, i: ".."),
        "stage() in iteration 0 returned '..': a stage's name is",
    ),
    "a control character": (stages(lambda s, i: "a\0b"), r"returned 'a\x00b': a stage's name is"),
    "a long name": (stages(lambda s, i: "x" * 300), "returned 'xxxx"),
    "the start": (
        stages(lambda s, i: "start"),
        "returned 'start', which is the snapshot before the f",
    ),
    "an exception": (stages(lambda s, i: "ab"[i]), "stage() raised IndexError: string index out"),
}


def prompts(change: Any) -> ComponentConfig:
    return rebuilt(ExamplePromptsConfig, lambda part: change(list(part)))


PROMPTS: Flaws = {
    "blank": (prompts(lambda p: ["a cat", " "]), "prompt 1 is ' ', not a line of text"),
    "no text": (prompts(lambda p: ["a cat", 3]), "prompt 1 is 3, not a line of text"),
    "none": (prompts(lambda p: []), "it gave no prompt"),
    "a generator": (
        prompts(iter),
        "build() returned list_iterator, which has no `__len__`, `__getitem__`",
    ),
    "a string": (prompts("".join), "it gave one string, not a sequence of prompts"),
    "shuffled": (
        prompts(lambda p: random.sample(p, len(p))),
        "differs between two processes",
    ),
    "a mapping": (
        prompts(lambda p: dict(enumerate(p, start=1))),
        "prompt 0 of 6 raised KeyError: 0",
    ),
    "nothing built": (rebuilt(ExamplePromptsConfig, lambda *a: None), "build() returned None"),
}


class Pictures(list[str]):
    """A source of pictures in [0, 255]."""

    def images(self, indices: Any, height: int, width: int) -> Any:
        return torch.full((len(indices), 3, height, width), 255)

    def digest(self) -> int:
        return 3


class Small(Pictures):
    def images(self, indices: Any, height: int, width: int) -> Any:
        return torch.zeros(len(indices), 3, 8, 8)


PICTURES: Flaws = {
    "range": (prompts(Pictures), "images(): pictures leave the range [0, 1]"),
    "size": (prompts(Small), "images(): gave (2, 3, 8, 8), not (2, 3, 64, 64)"),
    "digest": (prompts(Pictures), "digest(): gave 3, not a short text that changes when a pictur"),
}


class Forgetful(ExampleRefreshConfig):
    """A config that says something else when it is read again."""

    type: Literal["forgetful"] = "forgetful"
    age: int = Field(3, exclude=True)


class Raising(ExampleRefreshConfig):
    def build(self) -> Any:
        return {}["age"]


class Sure(ExampleRefreshConfig):
    def reset_chance(self, draw_chance: float) -> float:
        return 3 * draw_chance


class Hasty(ExampleRefreshConfig):
    """It looks into a file before anything is built, and says what is wrong as it likes."""

    def preflight(self, recipe: Any) -> Any:
        return [Remark("too old", "years"), "a sentence"]


class Careless(ExampleRefreshConfig):
    def preflight(self, recipe: Any) -> Any:
        return [Remark(recipe.refresh.years)]


CONFIGS: Flaws = {
    "chance": (Sure(), "reset_chance(): 1.5 is no chance in [0, 1]"),
    "remark": (Hasty(), "preflight(): gave 'a sentence', not a Remark"),
    "field": (Hasty(), "preflight(): a Remark is about `years`, which is no field of it"),
    "preflight": (Careless(), "preflight() raised AttributeError: 'Careless' object has no attri"),
    "forgetful": (Forgetful(age=4), "comes back from YAML as Forgetful(type='forgetful', age=3)"),
    "raising": (Raising(), f"build() raised KeyError: 'age' ({__file__}:"),
}


@table(REFINEMENTS | PROMPTS | PICTURES | CONFIGS)
def test_a_flaw_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_a_socket_without_checks_is_a_sentence() -> None:
    class Elsewhere(ExampleRefreshConfig):
        socket = "elsewhere"

    with pytest.raises(AssertionError, match="no checks for elsewheres; sockets: teacher, stud"):
        testing.check(Elsewhere())


# ---------------------------------------------------------------- refresh


def pick(change: Any) -> ComponentConfig:
    """`change(sound, iteration, heads, generator)` in the place of `pick`."""
    return flawed(ExampleRefreshConfig, pick=change)


def worst(sound: Any, i: int, heads: Any, generator: Any) -> list[int]:
    """By accuracy; NaN is no number."""
    return [round(float(heads.accuracy_N.min())) * 0]


def remembering() -> Any:
    before: list[int] = []

    def change(sound: Any, i: int, heads: Any, generator: Any) -> list[int]:
        before.append(i)
        return [len(before) % len(heads)]

    return change


def zeroes(name: str) -> Any:
    def change(sound: Any, i: int, heads: Any, generator: Any) -> list[int]:
        getattr(heads, name).zero_()
        return []

    return change


REFRESHES: Flaws = {
    "twice": (pick(lambda s, i, heads, g: [0, 0]), "[0, 0] are not distinct heads of it"),
    "no such head": (
        pick(lambda s, i, heads, g: [len(heads)]),
        "pick(): iteration 0 of a pool of 1: [1] are not distinct heads",
    ),
    "negative": (pick(lambda s, i, heads, g: [-1]), "[-1] are not distinct heads of it"),
    "tensors": (
        pick(lambda s, i, heads, g: [heads.age_N[0]]),
        "heads should be whole numbers of Python, not [tensor(",
    ),
    "a tensor": (
        pick(lambda s, i, heads, g: heads.age_N.argsort()[:1]),
        "heads should be whole numbers of Python",
    ),
    "masks": (pick(lambda s, i, heads, g: [True]), "heads should be whole numbers of Python"),
    "nothing": (pick(lambda *a: None), "pick(): iteration 0 of a pool of 1: gave None, not a list"),
    "global generator": (
        pick(lambda s, i, heads, g: torch.randperm(len(heads)).tolist() if len(heads) > 9 else []),
        "of a pool of 480: two processes pick different heads from the same generator",
    ),
    "Python's generator": (
        pick(lambda s, i, heads, g: [] if len(heads) < 9 else random.sample(range(480), 99)),
        "two processes pick different heads",
    ),
    "memory": (pick(remembering()), "two processes pick different heads"),
    "one pool too small": (
        pick(
            lambda s, i, heads, g: torch.randperm(len(heads), generator=g)[:2].tolist()[1:] or [][0]
        ),
        "pick(): iteration 0 of a pool of 1 raised IndexError: list index out of range (",
    ),
    "heads that have seen nothing": (
        pick(worst),
        "whose heads have seen no picture (accuracy NaN) raised ValueError: cannot convert float N",
    ),
    "ages": (pick(zeroes("age_N")), "pick(): changed `age_N` of what it was given"),
    "updates": (pick(zeroes("updates_N")), "pick(): changed `updates_N` of what it was given"),
    "draws": (pick(zeroes("learned_N")), "pick(): changed `learned_N` of what it was given"),
    "accuracies": (pick(zeroes("accuracy_N")), "pick(): changed `accuracy_N` of what it was"),
    "a field that is not there": (
        pick(lambda s, i, age_N, g: (age_N > 5).nonzero().flatten().tolist()),
        "raised TypeError: '>' not supported between instances of 'HeadStats' and 'int'",
    ),
}


@table(REFRESHES)
def test_a_flaw_of_a_refresh_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_all_heads_or_none_may_be_picked() -> None:
    testing.check(pick(lambda s, i, heads, g: list(range(len(heads)))))
    testing.check(pick(lambda s, i, heads, g: ()))

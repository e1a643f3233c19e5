"""Every flaw that a part can have is told in a sentence: each example here has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.exporter import ExampleExporterConfig
from distillkit.examples.layout import ExampleLayoutConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.prompts import ExamplePromptsConfig
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.examples.refresh import ExampleRefreshConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.values import DrawnHead, JudgedView, Panel, View


def flawed(base: type[ComponentConfig], **changes: Any) -> ComponentConfig:
    """The example, whose part has other attributes. A function takes the sound one first."""

    class Flawed(base):  # type: ignore[misc, valid-type]
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            for name, change in changes.items():
                sound = getattr(part, name)
                if callable(change):
                    change = bind(change, sound)
                part.__dict__[name] = change
            return part

    return Flawed()


def bind(change: Any, sound: Any) -> Any:
    return lambda *args: change(sound, *args)


def panel(*heads: DrawnHead, t: float = 10, crop: float = 1.0, batch: int = 3) -> Any:
    judged = JudgedView(View("v", crop, True), torch.full((batch,), t), tuple(heads))
    return lambda sound, batch, generator: Panel((judged,))


def flaky(sound: Any, *args: Any) -> Any:
    """Draws from the global generator."""
    return sound(*args) + torch.rand(())


def neighbourly(sound: Any, x_BCHW: Tensor, *args: Any) -> Any:
    return sound(x_BCHW, *args) + x_BCHW.mean()


def reset_all(sound: Any, heads: Any, generator: Any) -> None:
    sound([0, 1], generator)


def reset_other_weights(sound: Any, heads: Any, generator: Any) -> None:
    sound(heads, torch.Generator().manual_seed(int(torch.randint(9999, ()))))


def pickled(sound: Any, folder: Path, shift: int) -> None:
    sound(folder, shift)
    torch.save({}, folder / "weights.pt")


def litter(sound: Any, network: Any, shift: int, path: Path) -> Any:
    path.with_name("notes.txt").write_text("?")
    return sound(network, shift, path)


FLAWS = [
    (flawed(ExampleTeacherConfig, schedule=3), "schedule: should be a NoiseSchedule"),
    (flawed(ExampleTeacherConfig, modules=lambda sound: []), "the denoiser's network is missing"),
    (flawed(ExampleTeacherConfig, sample=flaky), "differs between calls with the same x_T"),
    (flawed(ExampleTeacherConfig, sample=neighbourly), "depends on what else is in its batch"),
    (
        flawed(ExampleTeacherConfig, sample=lambda sound, *a: sound(*a)[:, :2]),
        "sample(): gave (3, 2, 8, 8) for x_T (3, 4, 8, 8)",
    ),
    (flawed(ExampleTeacherConfig, decode=lambda _, x: x), "decode(): gave (3, 4, 8, 8), not"),
    (flawed(ExampleTeacherConfig, decode=lambda _, x: x[:, :3] * 9), "leave the range [0, 1]"),
    (flawed(ExampleTeacherConfig, null=lambda sound, n: sound(n + 1)), "null(2): gave 3 rows"),
    (flawed(ExampleStudentConfig, prediction="noise"), "prediction: 'noise' is none of"),
    (flawed(ExampleStudentConfig, publish=pickled), "weights.pt is a pickle"),
    (flawed(ExampleStudentConfig, publish=lambda *a: None), "publish(): wrote no file"),
    (flawed(ExampleBackboneConfig, channels=(8,)), "2 maps, but channels has 1 levels"),
    (flawed(ExampleBackboneConfig, channels=(8, 9)), "level 1 is (3, 8, 4, 4), not (3, 9, h, w)"),
    (
        flawed(ExampleBackboneConfig, features=lambda sound, x, *a: sound(x.detach(), *a)),
        "no gradient reaches x_t from level 0",
    ),
    (
        flawed(ExampleBackboneConfig, features=lambda s, x, *a: s(x + x.mean(), *a)),
        "a picture's maps depend on what else",
    ),
    (
        flawed(ExampleBackboneConfig, features=lambda s, x, *a: s(x + torch.rand(()), *a)),
        "features(): differ between two calls",
    ),
    (flawed(ExamplePoolConfig, heads=[]), "should be an nn.ModuleList"),
    (flawed(ExamplePoolConfig, draw=panel()), "draw(): a panel has no head"),
    (
        flawed(ExamplePoolConfig, draw=panel(DrawnHead(0, 9))),
        "DrawnHead(level=0, head=9) is out of range",
    ),
    (flawed(ExamplePoolConfig, draw=panel(DrawnHead(0, 0), t=1000)), "leaves the range 0 to 999"),
    (flawed(ExamplePoolConfig, draw=panel(DrawnHead(0, 0), batch=2)), "t_B is (2,), not (3,)"),
    (flawed(ExamplePoolConfig, draw=panel(DrawnHead(0, 0), crop=1.5)), "crop 1.5, not in (0, 1]"),
    (
        flawed(ExamplePoolConfig, draw=lambda s, n, g: s(n, torch.default_generator)),
        "two processes draw different panels",
    ),
    (flawed(ExamplePoolConfig, reset=lambda *a: None), "reset(): the head kept its weights"),
    (flawed(ExamplePoolConfig, reset=reset_all), "changed a head that was not to be reset"),
    (flawed(ExamplePoolConfig, reset=reset_other_weights), "two processes give a head different"),
    (flawed(ExampleLossConfig, critic=lambda sound, e: sound(e) / 0), "finite scalar or None"),
    (flawed(ExampleLossConfig, critic=flaky), "critic(): differs between two calls"),
    (
        flawed(ExampleLossConfig, student=lambda s, e: e.critic_logits()[0].fake_BK.mean()),
        "student(): its gradient reaches the other player",
    ),
    (
        flawed(ExampleLossConfig, student=lambda sound, e: sound(e).detach()),
        "student(): its gradient reaches nothing of the student's",
    ),
    (
        flawed(ExampleLossConfig, critic=lambda s, e: None, student=lambda s, e: None),
        "it returns None for both players",
    ),
    (flawed(ExampleExporterConfig, suffix="bin"), "suffix: 'bin' should start with a dot"),
    (flawed(ExampleExporterConfig, export=lambda *a: []), "a file should be at its path"),
    (flawed(ExampleExporterConfig, export=lambda s, *a: s(*a)[0]), "return a list of lines"),
    (flawed(ExampleExporterConfig, export=litter), "left notes.txt beside what it wrote"),
    (flawed(ExampleRefinementConfig, iterations=0), "leaves nothing to train"),
    (flawed(ExampleRefinementConfig, steps=lambda *a: 5), "5 in iteration 0; a roll-out has 1 to"),
    (
        flawed(ExampleRefinementConfig, steps=lambda s, i, g: int(torch.randint(1, 5, ()))),
        "differs between two calls with the same generator",
    ),
    (flawed(ExampleRefinementConfig, stage=lambda s, i: "ab"[i % 2]), "comes back after another"),
    (flawed(ExampleRefinementConfig, stage=lambda s, i: "a/b"), "snapshot's file name"),
]


@pytest.mark.parametrize(("config", "finding"), FLAWS, ids=lambda value: str(value)[:40])
def test_a_flaw_is_found(config: ComponentConfig, finding: str) -> None:
    with pytest.raises(AssertionError) as caught:
        testing.check(config)
    assert finding in str(caught.value)
    assert str(caught.value).startswith(f"{config.socket} 'example' breaks its contract:\n  ")


def frozen_flaw(base: type[ComponentConfig], **changes: Any) -> ComponentConfig:
    """As `flawed`, for parts that are frozen dataclasses."""

    class Flawed(base):  # type: ignore[misc, valid-type]
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            for name, change in changes.items():
                object.__setattr__(part, name, bind(change, getattr(part, name)))
            return part

    return Flawed()


@pytest.mark.parametrize(
    ("pick", "finding"),
    [
        (lambda s, i, age_N, g: [0, 0], "[0, 0] are not distinct heads of it"),
        (lambda s, i, age_N, g: [len(age_N)], "pool of 1: [1] are not distinct heads"),
        (lambda s, i, age_N, g: [age_N[0]], "should be whole numbers of Python"),
        (
            lambda s, i, age_N, g: torch.randperm(len(age_N))[:2].tolist(),
            "two processes pick different heads",
        ),
        (lambda s, i, age_N, g: age_N.zero_().tolist()[:1], "pick(): changed the ages"),
    ],
)
def test_a_flaw_of_a_refresh_is_found(pick: Any, finding: str) -> None:
    with pytest.raises(AssertionError) as caught:
        testing.check(frozen_flaw(ExampleRefreshConfig, pick=pick))
    assert finding in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"prompts": lambda s, n, seed: ["same"] * n}, "do not depend on the seed"),
        ({"prompts": lambda s, n, seed: ["few"]}, "should give eight lines of text"),
        ({"compute": lambda s, *a: {}}, "compute(): gave none"),
        ({"compute": lambda s, *a: {"a": float("nan")}}, "'a' is nan, not a finite number"),
        ({"compute": lambda s, p, *a: {"a": p.mean()}}, "not a finite number"),
        ({"compute": lambda s, *a: {"a": 1.0}}, "compute(): 'a' has no entry in `info`"),
    ],
)
def test_a_flaw_of_metrics_is_found(changes: Any, finding: str) -> None:
    with pytest.raises(AssertionError) as caught:
        testing.check(frozen_flaw(ExampleMetricsConfig, **changes))
    assert finding in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"names": lambda s, keys: {}}, "a file without tensors should be None"),
        ({"names": lambda s, keys: {"a": "b"} if keys else None}, "a key that the file does not"),
        ({"what_is": lambda s, keys: ""}, "should describe every file"),
    ],
)
def test_a_flaw_of_a_layout_is_found(changes: Any, finding: str) -> None:
    with pytest.raises(AssertionError) as caught:
        testing.check(frozen_flaw(ExampleLayoutConfig, **changes))
    assert finding in str(caught.value)


class Blank(ExamplePromptsConfig):
    def build(self) -> Any:
        return ["a cat", " "]


class Forgetful(ExampleRefreshConfig):
    """A config that says something else when it is read again."""

    type: Literal["forgetful"] = "forgetful"
    age: int = Field(3, exclude=True)


class Twins(ExampleLossConfig):
    """A loss with a network whose weights nobody seeded."""

    def build(self, *args: Any) -> Any:
        part = super().build(*args)
        network = nn.Linear(1, 1)
        object.__setattr__(part, "modules", lambda: [network])
        return part


class Tied(ExampleStudentConfig):
    """A student that trains the teacher's own weights."""

    def build(self, teacher: Any) -> Any:
        part = super().build(teacher)
        part.module = teacher.denoiser.module.requires_grad_(True)
        return part


@pytest.mark.parametrize(
    ("config", "finding"),
    [
        (Blank(), "prompt 1 is ' ', not a line of text"),
        (Forgetful(age=4), "comes back from YAML as Forgetful(type='forgetful', age=3)"),
        (Twins(), "modules(): two processes start with different weights"),
        (Tied(), "weight trains and is the teacher's too: copy it"),
        (Tied(), "a step of the student moved the teacher"),
    ],
)
def test_a_flaw_of_a_whole_part_is_found(config: ComponentConfig, finding: str) -> None:
    with pytest.raises(AssertionError) as caught:
        testing.check(config)
    assert finding in str(caught.value)


class Shrunk(ExampleStudentConfig):
    """Its plan would be of a smaller network than the run's."""

    def outline(self, teacher: Any) -> Any:
        part = super().build(teacher)
        part.module = nn.Sequential(nn.Linear(2, 2))
        return part


class Frozen(ExampleStudentConfig):
    """Its plan would reckon without gradients."""

    def outline(self, teacher: Any) -> Any:
        part = super().build(teacher)
        part.module.requires_grad_(False)
        return part


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (Shrunk(), r"outline\(\): network 0, .* is missing[\s\S]*is not in what build\(\) makes"),
        (Frozen(), r"outline\(\): network 0, .*False\), and .*True\) in what build\(\) makes"),
    ],
)
def test_an_outline_of_another_size_is_told(config: ComponentConfig, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        testing.check(config)

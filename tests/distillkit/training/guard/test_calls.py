"""Calls that a whole run makes of its parts, evaluation included: what is wrong is one sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distillkit.configs import ComponentConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.prompts import ExamplePromptsConfig
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.memory.plan import make_plan
from distillkit.training.guard import PartError
from distillkit.values import Condition
from distillkit_nitrofusion.losses.hinge import HingeConfig
from tests.distillkit.testing.flaws import without
from tests.distillkit.training.guard.spoilt import TORN, Words, made, sentence, spoilt, torn
from tests.distillkit.world import THEIRS, brought_by_theirs, world_recipe

ROCKS: dict[str, Any] = {
    "heads": torch.nn.ModuleList([torch.nn.Flatten()]),
    "draw": torn,
    "reset": torn,
}
"""What a pool has, with a head that can't learn."""


def with_attribute(base: type[ComponentConfig], name: str, value: Any) -> ComponentConfig:
    """The config of an example whose part has another attribute."""

    class Other(base):  # type: ignore[valid-type, misc]
        def build(self, *args: Any) -> Any:
            part = super().build(*args)
            kind = type("Other", (type(part),), {name: None})
            other = kind.__new__(kind)
            other.__dict__.update(vars(part) | {name: value})
            return other

    return Other()


@pytest.mark.parametrize(
    ("part", "call"),
    [
        (spoilt(ExampleTeacherConfig, "encode", torn), "encode()"),
        (spoilt(ExampleTeacherConfig, "null", torn), "null()"),
        (spoilt(ExampleTeacherConfig, "decode", torn), "decode()"),
        (spoilt(ExampleTeacherConfig, "modules", torn), "modules()"),
        (spoilt(ExampleTeacherConfig, "to", torn), "to()"),
        (spoilt(ExampleStudentConfig, "publish", torn), "publish()"),
        (spoilt(ExampleBackboneConfig, "modules", torn), "modules()"),
        (spoilt(ExampleRefinementConfig, "stage", torn), "stage()"),
        (spoilt(ExampleRefinementConfig, "steps", torn), "steps()"),
        (spoilt(ExampleMetricsConfig, "prompts", torn), "prompts()"),
        (spoilt(ExampleMetricsConfig, "compute", torn), "compute()"),
        (made(ExamplePromptsConfig, lambda: Words(torn)), "prompt "),
        (made(ExamplePromptsConfig, torn), "build()"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: ComponentConfig, call: str
) -> None:
    said = sentence(monkeypatch, tmp_path / "run", part)
    assert said.startswith(f"failed in {call}")
    assert said.endswith(f": {TORN}")


def test_an_exception_where_a_loss_lists_its_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = sentence(monkeypatch, tmp_path / "run", spoilt(HingeConfig, "modules", torn))
    assert said == f"loss 'hinge' {THEIRS} failed in modules(): {TORN}"


def rows(count: int) -> Condition:
    return Condition({"told": torch.zeros(count, 2)})


@pytest.mark.parametrize(
    ("part", "flaw"),
    [
        (
            spoilt(ExampleTeacherConfig, "encode", lambda _: rows(3)),
            "encode() returned a tensor (3, 2) for 'told', not one row for each of 4 prompts",
        ),
        (
            spoilt(ExampleTeacherConfig, "encode", lambda _: torch.zeros(4, 2)),
            "encode() returned a tensor (4, 2), not a Condition with tensors",
        ),
        (
            spoilt(ExampleTeacherConfig, "null", lambda _: rows(1)),
            "null() returned a tensor (1, 2) for 'told', not one row for each of 4 prompts",
        ),
        (
            spoilt(ExampleTeacherConfig, "decode", lambda x: x * 2 + 5),
            "decode() returned pictures from 5.",
        ),
        (
            spoilt(ExampleTeacherConfig, "decode", lambda x: x[:, :, :4]),
            "decode() returned a tensor (2, 3, 4, 8), not pictures (2, 3, 8, 8)",
        ),
        (
            spoilt(ExampleTeacherConfig, "modules", lambda _: {"unet": 1}),
            "modules() returned {'unet': 1}, not a list of networks",
        ),
        (
            with_attribute(ExampleStudentConfig, "publish", lambda *_: None),
            "publish() wrote nothing to ",
        ),
        (
            spoilt(ExampleRefinementConfig, "stage", lambda _: "a/b"),
            "stage() returned 'a/b': a stage's name is a snapshot's file name",
        ),
        (
            spoilt(ExampleRefinementConfig, "stage", lambda _: "a\0b"),
            r"stage() returned 'a\x00b': a stage's name is a snapshot's file name",
        ),
        (
            spoilt(ExampleRefinementConfig, "stage", lambda _: "x" * 300),
            "stage() returned 'xxxxxxxx",
        ),
        (
            spoilt(ExampleMetricsConfig, "compute", lambda v: dict.fromkeys(v, "1.5")),
            "compute() returned '1.5' for '",
        ),
        (
            made(ExamplePoolConfig, lambda: SimpleNamespace(**ROCKS)),
            "build() returned a pool whose heads have no parameter that trains",
        ),
        (
            spoilt(ExampleRefinementConfig, "stage", lambda _: "start"),
            "stage() returned 'start', which is the snapshot before the first stage",
        ),
        (
            spoilt(ExampleRefinementConfig, "steps", lambda _: 5),
            "steps() returned 5; a roll-out has 1 to 4 steps",
        ),
        (
            spoilt(ExampleRefinementConfig, "steps", lambda _: torch.tensor(1)),
            "steps() returned tensor(1); a roll-out has 1 to 4 steps",
        ),
        (
            with_attribute(ExampleRefinementConfig, "iterations", 0),
            "build() returned a refinement of 0 iterations, not of 1 or more",
        ),
        (
            spoilt(ExampleMetricsConfig, "prompts", lambda _: ["one"] * 3),
            "prompts() returned 3 prompts, not ",
        ),
        (
            spoilt(ExampleMetricsConfig, "compute", lambda values: {"distance": 1.0}),
            "compute() and `info` differ in 'brightness': both name every metric",
        ),
        (
            spoilt(ExampleMetricsConfig, "compute", lambda values: values | {"distance": None}),
            "compute() returned None for 'distance', not a number",
        ),
        (
            with_attribute(ExampleMetricsConfig, "info", ["distance"]),
            "build() returned metrics whose `info` is ['distance'], not MetricInfo by name",
        ),
        (
            made(ExamplePromptsConfig, lambda: Words(lambda index: index)),
            "prompt ",
        ),
        (
            made(ExamplePromptsConfig, lambda: "a red ring"),
            "build() returned one string, not a sequence of prompts",
        ),
        (
            made(ExamplePromptsConfig, lambda: iter(["a red ring"])),
            "build() returned list_iterator, which has no `__len__`, `__getitem__`",
        ),
        (
            without(ExampleTeacherConfig, "decode", "null"),
            "build() returned Cut, which has no `decode`, `null`",
        ),
        (
            with_attribute(ExamplePoolConfig, "heads", []),
            "build() returned a pool whose `heads` is no nn.ModuleList of at least one head",
        ),
        (
            with_attribute(ExampleBackboneConfig, "channels", (8, 0)),
            "build() returned a backbone with the channels (8, 0)",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_wrong_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: ComponentConfig, flaw: str
) -> None:
    said = sentence(monkeypatch, tmp_path / "run", part)
    assert said.startswith(f"breaks its contract: {flaw}")


def test_a_plan_names_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    part = spoilt(ExampleTeacherConfig, "null", torn)
    brought_by_theirs(monkeypatch, part)
    with pytest.raises(PartError) as caught:
        make_plan(world_recipe(teacher=part))
    assert str(caught.value) == f"teacher 'example' {THEIRS} failed in null(): {TORN}"

"""`check`: a part and its contract."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

from distillkit import contracts
from distillkit.configs import ComponentConfig, TeacherConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.recipe import yaml12
from distillkit.remarks import Remark
from distillkit.testing.findings import Findings, calling, each, fail_with
from distillkit.testing.outlines import outline
from distillkit.testing.plans import plan_findings
from distillkit.testing.runs import recipe
from distillkit.testing.sockets.backbone import backbone_findings
from distillkit.testing.sockets.exporter import exporter_findings
from distillkit.testing.sockets.layout import layout_findings
from distillkit.testing.sockets.loss import loss_findings
from distillkit.testing.sockets.metrics import metrics_findings
from distillkit.testing.sockets.pool import POOLED, pool_findings
from distillkit.testing.sockets.prompts import prompts_findings
from distillkit.testing.sockets.refinement import refinement_findings
from distillkit.testing.sockets.refresh import refresh_findings
from distillkit.testing.sockets.student import student_findings
from distillkit.testing.sockets.teacher import teacher_findings
from distillkit.training.build import freeze

CHANNELS = (8, 12, 16)
"""Levels that a pool is checked with, no two alike: a head on another's fails."""
SIZE = (64, 64)
"""Height and width of pictures, where no teacher tells them."""


def check(
    config: ComponentConfig,
    *,
    teacher: contracts.Teacher | None = None,
    student: contracts.StudentNetwork | None = None,
    channels: tuple[int, ...] = CHANNELS,
) -> None:
    """Hold the part that `config` builds to the contract of its socket.

    `teacher` is for students, backbones and losses that need one of their own family, and tells
    metrics and prompts the size of its pictures; `student` is for exporters of one family. Both
    are built parts. `channels` are the backbone levels that a pool gets. Raises AssertionError with
    every finding.
    """
    own = teacher or ExampleTeacherConfig().build()
    freeze(own.modules())  # as a run does before it builds the other parts
    size = teacher.image_size if teacher is not None else SIZE
    checks: dict[str, Callable[[], Findings]] = {
        "teacher": lambda: teacher_findings(config),
        "student": lambda: student_findings(config, own),
        "backbone": lambda: backbone_findings(config, own),
        "pool": lambda: pool_findings(config, channels),
        "refresh": lambda: refresh_findings(config),
        "loss": lambda: loss_findings(config, own),
        "refinement": lambda: refinement_findings(config),
        "prompts": lambda: prompts_findings(config, size),
        "metrics": lambda: metrics_findings(config, size),
        "exporter": lambda: exporter_findings(config, own, student),
        "layout": lambda: layout_findings(config),
    }
    if config.socket not in checks:
        said = f"there are no checks for {config.socket}s; sockets: {', '.join(checks)}"
        fail_with(_name(config), [said])
    found = [*each(written_and_read(config), _preflight(config), checks[config.socket]())]
    # In a part that is broken already the same flaws would come again.
    if not found:
        found += each(_outline(config, own, channels), _plan(config, teacher))
    fail_with(_name(config), found)


def _name(config: ComponentConfig) -> str:
    return f"{config.socket} '{config.name()}'"


def _preflight(config: ComponentConfig) -> Findings:
    """It tells what is missing, and is no place for exceptions."""
    if config.socket in ("exporter", "layout"):
        return  # they are in no recipe
    with calling("preflight()"):
        remarks = list(config.preflight(recipe(config)))
    for remark in remarks:
        if not isinstance(remark, Remark):
            yield f"preflight(): gave {remark!r}, not a Remark"
        elif remark.field and remark.field not in type(config).model_fields:
            yield f"preflight(): a Remark is about `{remark.field}`, which is no field of it"


def _outline(
    config: ComponentConfig, teacher: contracts.Teacher, channels: tuple[int, ...]
) -> Findings:
    pooled = [POOLED] if getattr(config, "sees_prompt", False) else []
    arguments: dict[str, tuple[Any, ...]] = {
        "teacher": (),
        "student": (teacher,),
        "backbone": (teacher,),
        "pool": (channels, 0, *pooled),
    }
    if config.socket in arguments:
        yield from outline(config, *arguments[config.socket])


def _plan(config: ComponentConfig, teacher: contracts.Teacher | None) -> Findings:
    """What a dry run finds in parts that run on the device; heads have a check of their own."""
    if config.socket in ("teacher", "student", "backbone", "loss"):
        family = [_given(teacher)] if teacher is not None and config.socket != "teacher" else []
        # Beside a loss that has a term for both players.
        more = [ExampleLossConfig()] if config.socket == "loss" else []
        yield from plan_findings(recipe(config, *more, *family))


def _given(teacher: contracts.Teacher) -> TeacherConfig:
    """The config of a teacher that was built before; every plan gets a copy."""

    class Given(TeacherConfig):
        """A teacher of the tested part's own family."""

        type: Literal["given"] = "given"

        def build(self) -> contracts.Teacher:
            copied = copy.deepcopy(teacher)
            copied.to("meta")  # where a plan's parts are
            return copied

    return Given()


def written_and_read(config: ComponentConfig) -> Findings:
    """A config that is written as YAML and read again is equal."""
    try:
        text = yaml12.dump(config.model_dump())
        again = type(config).model_validate(yaml12.parse(text).value)
    except Exception as error:
        yield f"its config does not survive being written as YAML: {error}"
        return
    if again != config:
        yield f"its config comes back from YAML as {again!r}, not {config!r}"

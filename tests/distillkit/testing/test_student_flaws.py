"""What a student can get wrong. Each is told in a sentence."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from tests.distillkit.testing.flaws import (
    Flaws,
    flawed,
    rebuilt,
    said_of,
    table,
)


def pickled(sound: Any, folder: Path, shift: int) -> None:
    sound(folder, shift)
    torch.save({}, folder / "weights.pt")


def disguised(sound: Any, folder: Path, shift: int) -> None:
    folder.mkdir()
    torch.save({}, folder / "weights.safetensors")


def halving(part: Any, *_: Any) -> Any:
    sound = part.publish

    def publish(folder: Path, shift: int) -> None:
        sound(folder, shift)
        part.module.half()

    part.publish = publish
    return part


class Norm(nn.Sequential):
    """The network, then batch statistics."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW: Tensor = super().forward(x_BCHW)
        return y_BCHW / y_BCHW.std()


def with_statistics(part: Any, *_: Any) -> Any:
    part.module = Norm(part.module)
    return part


def outside(part: Any, *_: Any) -> Any:
    """A scale that trains and is not in `module`."""
    scale, sound = nn.Parameter(torch.ones(())), part.denoiser

    class Scaled:
        prediction = sound.prediction
        module = property(lambda self: sound.module, lambda self, m: setattr(sound, "module", m))

        def __call__(self, *args: Any) -> Any:
            return sound(*args) * scale

    part.denoiser = Scaled()
    return part


def past_the_wrapper(part: Any, *_: Any) -> Any:
    own, sound = part.module, part.denoiser

    class Direct:
        prediction, module = sound.prediction, own

        def __call__(self, *args: Any) -> Any:
            was, sound.module = sound.module, own
            try:
                return sound(*args)
            finally:
                sound.module = was

    part.denoiser = Direct()
    return part


def unseeded(part: Any, *_: Any) -> Any:
    part.module.bias.data.add_(torch.rand(()))
    return part


class Tied(ExampleStudentConfig):
    """A student that trains the teacher's own weights."""

    def build(self, teacher: Any) -> Any:
        part = super().build(teacher)
        part.module = teacher.denoiser.module.requires_grad_(True)
        return part


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


STUDENTS: Flaws = {
    "no shift": (
        flawed(ExampleStudentConfig, publish=lambda s, folder, shift: s(folder, 1000)),
        "publish(): writes the same for two timestep shifts",
    ),
    "prediction": (flawed(ExampleStudentConfig, prediction="noise"), "'noise' is none of epsilon"),
    "pickle": (flawed(ExampleStudentConfig, publish=pickled), "weights.pt is a pickle"),
    "disguise": (flawed(ExampleStudentConfig, publish=disguised), "weights.safetensors is a pick"),
    "nothing": (flawed(ExampleStudentConfig, publish=lambda *a: None), "publish(): wrote no file"),
    "empty": (
        flawed(
            ExampleStudentConfig,
            publish=lambda s, folder, n: folder.mkdir() or (folder / "a").touch(),
        ),
        "publish(): wrote an empty file",
    ),
    "beside": (
        flawed(ExampleStudentConfig, publish=lambda s, folder, n: s(folder.parent, n)),
        "publish(): left shift.txt beside its folder",
    ),
    "changed": (rebuilt(ExampleStudentConfig, halving), "publish(): changed the student's network"),
    "statistics": (
        rebuilt(ExampleStudentConfig, with_statistics),
        "student: a picture's output depends on what else is in its batch",
    ),
    "outside": (
        rebuilt(ExampleStudentConfig, outside),
        "module: a parameter that trains is not in",
    ),
    "past": (rebuilt(ExampleStudentConfig, past_the_wrapper), "it is run past the trainer's wrapp"),
    "seed": (rebuilt(ExampleStudentConfig, unseeded), "two processes start with different weights"),
    "tied": (Tied(), "weight trains and is the teacher's too: copy it"),
    "tied, stepped": (Tied(), "a step of the student moved the teacher"),
    "tied, thawed": (Tied(), "it changed the teacher: its parameters ask for gradients"),
    "an exception": (
        flawed(ExampleStudentConfig, publish=lambda s, *a: s()),
        "publish() raised TypeError: ExampleStudent.publish() missing 2 required positional",
    ),
    "small outline": (Shrunk(), "is not in what build() makes"),
    "missing outline": (Shrunk(), "outline(): network 0, bias is missing"),
    "frozen outline": (Frozen(), "outline(): network 0, weight is"),
}


@table(STUDENTS)
def test_a_flaw_of_a_student_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_parts_of_one_family_are_checked_with_their_teacher() -> None:
    """Which is planned with them, and left as it was."""
    teacher = ExampleTeacherConfig(side=4).build()
    twin = copy.deepcopy(teacher)

    def only(part: Any, given: Any) -> Any:
        assert given.latent_shape == (4, 4, 4)
        return part

    testing.check(rebuilt(ExampleStudentConfig, only), teacher=teacher)
    testing.check(rebuilt(ExampleBackboneConfig, only), teacher=teacher)
    assert all(map(torch.equal, teacher.modules()[0].parameters(), twin.modules()[0].parameters()))
    assert teacher.denoiser.module.weight.device.type == "cpu"

"""A student that starts as the teacher's network, for any family of teachers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import StudentConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillkit.contracts import Denoiser, Teacher
    from distillkit.noising import Prediction
    from distillkit.values import Condition


class ExampleStudent:
    """A copy of the teacher's denoiser of which every weight trains, in float32."""

    def __init__(self, denoiser: Denoiser, file: str) -> None:
        self.denoiser = copy.deepcopy(denoiser)
        self.module = self.denoiser.module.float().train().requires_grad_(True)
        self.prediction: Prediction = denoiser.prediction
        self.file = file

    @property
    def module(self) -> nn.Module:
        return self.denoiser.module

    @module.setter
    def module(self, module: nn.Module) -> None:
        """The trainer wraps the module for several processes."""
        self.denoiser.module = module

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        return self.denoiser(x_t_BCHW, t_B, cond)

    def publish(self, folder: Path, timestep_shift: int) -> None:
        from distillkit.atomic import save_tensors, write_text

        save_tensors(folder / self.file, self.module.state_dict())
        write_text(folder / "shift.txt", f"{timestep_shift}\n")


class ExampleStudentConfig(StudentConfig):
    """The teacher's whole network trains."""

    type: Literal["example"] = "example"
    file: str = Field("student.safetensors", pattern=r"^[\w-]+\.safetensors$")
    """Name of the published file."""

    def build(self, teacher: Teacher) -> ExampleStudent:
        return ExampleStudent(teacher.denoiser, self.file)


@hookimpl
def distillkit_register_students() -> list[type[StudentConfig]]:
    return [ExampleStudentConfig]

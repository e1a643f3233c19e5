"""A teacher that is a formula: x_0 = tanh(x_T) / 2 + what the prompt says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from distillkit.configs import TeacherConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

    from distillkit.contracts import Denoiser
    from distillkit.noising import Prediction
    from distillkit.values import Condition


class ExampleDenoiser:
    """One convolution over x_t, what was told, and t."""

    prediction: Prediction = "epsilon"

    def __init__(self) -> None:
        from torch import nn

        from distillkit.randomness import generator

        network = nn.Conv2d(4 + 2 + 1, 4, 3, padding=1, device="meta")
        self.module: nn.Module = network.to_empty(device="cpu")
        for parameter in self.module.parameters():
            nn.init.normal_(parameter, std=0.1, generator=generator(0, "example"))

    def __call__(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition) -> Tensor:
        import torch

        told_B3 = torch.cat([cond.tensors["told"], t_B[:, None].float() / 1000], dim=1)
        maps_B3HW = told_B3[:, :, None, None].expand(-1, -1, *x_t_BCHW.shape[2:])
        output_BCHW: Tensor = self.module(torch.cat([x_t_BCHW, maps_B3HW], dim=1))
        return output_BCHW


class ExampleTeacher:
    """Every prompt has two numbers, which its pictures' brightness shows."""

    def __init__(self, side: int) -> None:
        import torch

        from distillkit.noising import NoiseSchedule

        beta_T = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
        self.schedule = NoiseSchedule((1 - beta_T).cumprod(0))
        self.latent_shape = (4, side, side)
        self.image_size = (side, side)
        self.denoiser: Denoiser = ExampleDenoiser()

    def encode(self, prompts: Sequence[str]) -> Condition:
        import torch

        from distillkit.values import Condition

        rows = [list(hashlib.sha256(prompt.encode()).digest()[:2]) for prompt in prompts]
        return Condition({"told": torch.tensor(rows).float() / 255})

    def null(self, count: int) -> Condition:
        import torch

        from distillkit.values import Condition

        return Condition({"told": torch.zeros(count, 2)})

    def sample(self, x_T_BCHW: Tensor, cond: Condition, generators: Sequence[Generator]) -> Tensor:
        return x_T_BCHW.tanh() / 2 + cond.tensors["told"].mean(1)[:, None, None, None]

    def decode(self, x_0_BCHW: Tensor) -> Tensor:
        return (x_0_BCHW[:, :3] / 2 + 0.5).clamp(0, 1)

    def encode_images(self, images_B3HW: Tensor) -> Tensor:
        import torch

        x_0_B3HW = 2 * images_B3HW - 1
        return torch.cat([x_0_B3HW, x_0_B3HW[:, :1]], dim=1)

    def to(self, device: Any) -> None:
        self.denoiser.module.to(device)

    def modules(self) -> Sequence[nn.Module]:
        return [self.denoiser.module]


class ExampleTeacherConfig(TeacherConfig):
    """A formula for a teacher."""

    type: Literal["example"] = "example"
    side: int = Field(8, ge=1)
    """Side of the latents, in cells."""

    def build(self) -> ExampleTeacher:
        return ExampleTeacher(self.side)


@hookimpl
def distillkit_register_teachers() -> list[type[TeacherConfig]]:
    return [ExampleTeacherConfig]

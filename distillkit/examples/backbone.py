"""A backbone of random features: two convolutions that nobody trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distillkit.configs import BackboneConfig
from distillkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillkit.contracts import Teacher
    from distillkit.values import Condition, Window


class ExampleBackbone:
    """Two levels: the picture's own size, and half of it."""

    def __init__(self, latent_channels: int, width: int) -> None:
        from torch import nn

        from distillkit.randomness import generator

        self.channels: tuple[int, ...] = (width, width)
        self.levels = nn.ModuleList(
            nn.Conv2d(channels, width, 3, stride, padding=1, device="meta").to_empty(device="cpu")
            for channels, stride in ((latent_channels, 1), (width, 2))
        ).requires_grad_(False)
        for number, parameter in enumerate(self.levels.parameters()):
            nn.init.normal_(parameter, std=0.3, generator=generator(0, "example", number))

    def features(
        self, x_t_BCHW: Tensor, t_B: Tensor, cond: Condition, window: Window
    ) -> Sequence[Tensor]:
        maps = [self.levels[0](x_t_BCHW).tanh()]
        return [*maps, self.levels[1](maps[0]).tanh()]

    def modules(self) -> Sequence[nn.Module]:
        return [self.levels]


class ExampleBackboneConfig(BackboneConfig):
    """Random features, the same in every run."""

    type: Literal["example"] = "example"
    width: int = Field(8, ge=1)
    """Channels of each level."""

    def build(self, teacher: Teacher) -> ExampleBackbone:
        return ExampleBackbone(teacher.latent_shape[0], self.width)


@hookimpl
def distillkit_register_backbones() -> list[type[BackboneConfig]]:
    return [ExampleBackboneConfig]

"""What a teacher can get wrong. Each is told in a sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from distillkit.configs import ComponentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.values import Condition
from tests.distillkit.testing.flaws import (
    Flaws,
    flawed,
    rebuilt,
    said_of,
    scribbling,
    table,
    without,
)


def flaky(sound: Any, *args: Any) -> Any:
    """Draws from the global generator."""
    return sound(*args) + torch.rand(())


def neighbourly(sound: Any, x_BCHW: Tensor, *args: Any) -> Any:
    return sound(x_BCHW, *args) + x_BCHW.mean()


def first_generator(sound: Any, x_BCHW: Tensor, cond: Any, generators: Any) -> Tensor:
    """All pictures' noise comes from one generator."""
    noise_BCHW = torch.randn(x_BCHW.shape, generator=generators[0])
    result: Tensor = sound(x_BCHW, cond, generators) + noise_BCHW
    return result


def constant_seed(sound: Any, x_BCHW: Tensor, *args: Any) -> Tensor:
    """A stochastic solver that draws from a generator of its own."""
    rng = torch.Generator().manual_seed(0)
    result: Tensor = sound(x_BCHW, *args) + torch.randn(x_BCHW.shape, generator=rng)
    return result


def renamed(sound: Any, count: int) -> Condition:
    return Condition({"null": torch.zeros(count, 2)})


def drops_denoiser(part: Any, *_: Any) -> Any:
    """A denoiser with noise in every call."""
    network = part.denoiser

    class Noisy:
        module, prediction = network.module, network.prediction

        def __call__(self, *args: Any) -> Tensor:
            return nn.functional.dropout(network(*args))

    part.denoiser = Noisy()
    return part


def trains_itself(part: Any, *_: Any) -> Any:
    sound = part.encode

    def encode(prompts: Any) -> Condition:
        part.denoiser.module.train()
        return sound(prompts)

    part.encode = encode
    return part


TEACHERS: Flaws = {
    "no modules": (
        flawed(ExampleTeacherConfig, modules=lambda s: None),
        "modules(): gave None, not a list of networks",
    ),
    "no null": (flawed(ExampleTeacherConfig, null=lambda *a: None), "null(): gave NoneType, not a"),
    "a constant seed": (
        flawed(ExampleTeacherConfig, sample=constant_seed),
        "sample(): a picture depends on what else is in its batch; its noise comes from its own g",
    ),
    "schedule": (flawed(ExampleTeacherConfig, schedule=3), "schedule: should be a NoiseSchedule"),
    "shape": (flawed(ExampleTeacherConfig, latent_shape=(4, 8)), "latent_shape: (4, 8) is not"),
    "modules": (flawed(ExampleTeacherConfig, modules=lambda s: []), "denoiser's network is miss"),
    "flaky": (
        flawed(ExampleTeacherConfig, sample=flaky),
        "differs between calls with the same x_T",
    ),
    "batch": (
        flawed(ExampleTeacherConfig, sample=neighbourly),
        "depends on what else is in its batch",
    ),
    "generators": (
        flawed(ExampleTeacherConfig, sample=first_generator),
        "sample(): a picture depends on what else is in its batch; its noise comes from its own g",
    ),
    "in place": (flawed(ExampleTeacherConfig, sample=scribbling), "sample(): wrote into x_T"),
    "samples": (
        flawed(ExampleTeacherConfig, sample=lambda sound, *a: sound(*a)[:, :2]),
        "sample(): gave (3, 2, 8, 8) for x_T (3, 4, 8, 8)",
    ),
    "no samples": (
        flawed(ExampleTeacherConfig, sample=lambda *a: None),
        "sample(): gave NoneType for x_T (3, 4, 8, 8)",
    ),
    "picture": (flawed(ExampleTeacherConfig, decode=lambda _, x: x), "gave (3, 4, 8, 8), not"),
    "range": (flawed(ExampleTeacherConfig, decode=lambda _, x: x[:, :3] * 9), "range [0, 1]"),
    "size": (flawed(ExampleTeacherConfig, image_size=(64, 64)), "image_size: (64, 64) is not the"),
    "no gradient": (
        flawed(ExampleTeacherConfig, decode=lambda s, x: s(x.detach())),
        "decode(): no gradient reaches x_0 from the pictures",
    ),
    "latents": (
        flawed(ExampleTeacherConfig, encode_images=lambda s, x: x),
        "encode_images(): gave (3, 3, 8, 8), not latents (3, 4, 8, 8)",
    ),
    "rows": (flawed(ExampleTeacherConfig, null=lambda s, n: s(n + 1)), "null(2): gave 3 rows"),
    "names": (flawed(ExampleTeacherConfig, null=renamed), "null(): tensors are {'null'"),
    "no condition": (
        flawed(ExampleTeacherConfig, encode=lambda s, prompts: {"told": prompts}),
        "encode(): gave dict, not a Condition with tensors",
    ),
    "dropout": (
        rebuilt(ExampleTeacherConfig, drops_denoiser),
        "denoiser: differs between two calls with the same input",
    ),
    "train mode": (
        rebuilt(ExampleTeacherConfig, trains_itself),
        "modules(): its network was put into train mode",
    ),
    "stays": (
        flawed(ExampleTeacherConfig, to=lambda *a: None),
        "to(): a network of modules() stayed where it was",
    ),
    "reads a value": (
        flawed(ExampleTeacherConfig, sample=lambda s, x, *a: s(x, *a) * bool(x.std() > 0)),
        "no `.item()`, `.tolist()`",
    ),
    "an exception": (
        flawed(ExampleTeacherConfig, decode=lambda s, x: x.nothing),
        f"decode() raised AttributeError: 'Tensor' object has no attribute 'nothing' ({__file__}:",
    ),
    "no method": (
        without(ExampleTeacherConfig, "null", "to"),
        "build() returned Cut, which has no `null`, `to`: a teacher has `decode`, `denoiser`, ",
    ),
}


@table(TEACHERS)
def test_a_flaw_of_a_teacher_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)

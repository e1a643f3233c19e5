"""What a teacher can get wrong. Each is told in a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.errors import UserError
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.memory.plan import make_plan
from distillkit.recipe.load import RecipeError
from distillkit.recipe.preflight import preflight
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
from tests.distillkit.world import world_recipe


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


def each_once(sound: Any, prompts: Any) -> Any:
    return sound(list(dict.fromkeys(prompts)))


def darkens(sound: Any, images_B3HW: Tensor) -> Any:
    return sound(images_B3HW.mul_(0.5))


def scribbling_alone(sound: Any, x_0_BCHW: Tensor) -> Any:
    """Writes where nobody asks for gradients."""
    return scribbling(sound, x_0_BCHW) if not torch.is_grad_enabled() else sound(x_0_BCHW)


def first_alone(sound: Any, images_B3HW: Tensor) -> Tensor:
    """Every picture has the first one's latents."""
    result: Tensor = sound(images_B3HW[:1]).expand(len(images_B3HW), -1, -1, -1)
    return result


def doubles_condition(sound: Any, x_BCHW: Tensor, cond: Any, generators: Any) -> Any:
    cond.tensors["told"].mul_(2)
    return sound(x_BCHW, cond, generators)


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


def masked(sound: Any, prompts: Any, dtype: Any = torch.bool) -> Condition:
    """Says that the second of the two numbers is padding, which the denoiser reads all the same."""
    told = sound(prompts).tensors["told"]
    return Condition({"told": told, "told_mask": torch.tensor([[1, 0]] * len(told)).to(dtype)})


class NoNull(ExampleTeacherConfig):
    """Says that there is no unconditional condition."""

    @property
    def has_null(self) -> bool:
        return False


TEACHERS: Flaws = {
    "writes into the condition": (
        flawed(ExampleTeacherConfig, sample=doubles_condition),
        "sample(): wrote into the condition, which the student gets too",
    ),
    "equal prompts once": (
        flawed(ExampleTeacherConfig, encode=each_once),
        "encode(): a prompt that comes twice should have two rows",
    ),
    "the first picture's latents": (
        flawed(ExampleTeacherConfig, encode_images=first_alone),
        "encode_images(): a picture's latents depend on what else is in its batch",
    ),
    "decodes in place": (
        flawed(ExampleTeacherConfig, decode=scribbling),
        "decode(): wrote into x_0, which others are given too",
    ),
    "decodes in place without gradients": (
        flawed(ExampleTeacherConfig, decode=scribbling_alone),
        "decode(): wrote into x_0, which others are given too",
    ),
    "encodes in place": (
        flawed(ExampleTeacherConfig, encode_images=darkens),
        "encode_images(): wrote into the pictures, which others are given too",
    ),
    "no modules": (
        flawed(ExampleTeacherConfig, modules=lambda s: None),
        "modules(): gave None, not a list of networks",
    ),
    "no null": (
        flawed(ExampleTeacherConfig, null=lambda *a: None),
        "null(): gave None, and the config's `has_null` is True: let them agree",
    ),
    "null of a kind": (flawed(ExampleTeacherConfig, null=lambda *a: 3), "null(): gave int, not a"),
    "a null after all": (NoNull(), "null(): gave a condition, and the config's `has_null` is Fal"),
    "padding": (flawed(ExampleTeacherConfig, encode=masked), "where told_mask is false changes"),
    "a mask of numbers": (
        flawed(ExampleTeacherConfig, encode=lambda s, p: masked(s, p, torch.int64)),
        "encode(): told_mask is (3, 2) of torch.int64; a mask is of bool",
    ),
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
    "latents of float64": (
        flawed(ExampleTeacherConfig, encode_images=lambda s, x: s(x.double())),
        "encode_images(): returned latents of float64, not of float32 or 16 bits",
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


class Guided(NoNull):
    """Has none, and says so."""

    def build(self) -> Any:
        part = super().build()
        part.null = lambda count: None  # type: ignore[method-assign]
        return part


def test_a_teacher_without_an_unconditional_condition_is_sound_and_trains() -> None:
    """With views that have the prompt; a view without one is refused in a sentence."""
    testing.check(Guided())
    testing.check_run(Guided())
    pool = {"type": "dynamic", "width": 16, "depth": 1, "heads_per_slot": 1}
    recipe = world_recipe(teacher=Guided(), pool=pool)
    with pytest.raises(RecipeError, match="pool: needs the unconditional condition, and the teac"):
        preflight(recipe)
    with pytest.raises(UserError, match="view 'local-uncond' has no prompt, and the teacher has"):
        make_plan(recipe)
    assert preflight(world_recipe(teacher=Guided(), pool=pool | {"views": ["global-cond"]})) == []

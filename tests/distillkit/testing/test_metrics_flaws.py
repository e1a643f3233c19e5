"""What metrics can get wrong. Each is told in a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import Field

from distillkit import testing
from distillkit.configs import ComponentConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.values import Measurement
from tests.distillkit.testing.flaws import Flaws, flawed, rebuilt, said_of, table


def asked(change: Any) -> ComponentConfig:
    """`change(sound, count, seed)` in the place of `prompts`."""
    return flawed(ExampleMetricsConfig, prompts=change)


def computed(change: Any) -> ComponentConfig:
    """`change(sound, images, prompts, teacher)` in the place of `compute`."""
    return flawed(ExampleMetricsConfig, compute=change)


def informed(change: Any) -> ComponentConfig:
    """`change(info)` in the place of `info`, a mutable mapping."""

    def whole(part: Any) -> Any:
        class Informed:
            info = change(dict(part.info))
            prompts, compute = part.prompts, part.compute

        return Informed()

    return rebuilt(ExampleMetricsConfig, whole)


def brightened(sound: Any, images: Any, prompts: Any, teacher: Any) -> Any:
    images.mul_(0.5)
    return sound(images, prompts, teacher)


def remembering(sound: Any, images: Any, prompts: Any, teacher: Any) -> Any:
    """Keeps the first reference that it is given."""
    return sound(images, prompts, KEPT.setdefault(id(sound), (sound, teacher))[1])


KEPT: dict[int, tuple[Any, Any]] = {}


def measured(change: Any) -> ComponentConfig:
    """The example with `measure`, which is `change(compute, images, prompts, teacher)`."""

    def whole(part: Any) -> Any:
        class Measured:
            info = part.info
            prompts, compute = part.prompts, part.compute

            def measure(self, images: Any, prompts: Any, teacher: Any) -> Any:
                return change(part.compute, images, prompts, teacher)

        return Measured()

    return rebuilt(ExampleMetricsConfig, whole)


def sliced(sound: Any, images: Any, prompts: Any, teacher: Any) -> Measurement:
    """As it should be: takes slices, has single values, and writes into a copy."""
    own, theirs = (pictures[0 : len(pictures)] for pictures in (images, teacher))
    values = sound(own, prompts, theirs)
    single = [float(images[n : n + 1].clone().mul_(1).mean()) for n in range(len(images))]
    return Measurement(values, {"brightness": single})


def dims(sound: Any, images: Any, prompts: Any, teacher: Any) -> Measurement:
    """Darkens the pictures in place, slice by slice, and makes up for it."""
    found = sliced(sound, images, prompts, teacher)
    images[0:2].mul_(0.5)
    return found


def by_kind(sound: Any, images: Any, prompts: Any, teacher: Any) -> Measurement:
    """Sees nothing but tensors."""
    values = sliced(sound, images, prompts, teacher).values
    return Measurement(values if hasattr(images, "shape") else dict.fromkeys(values, 0.0), {})


def renames(sound: Any, *given: Any) -> Measurement:
    found = sliced(sound, *given)
    return replace(found, per_picture={"brightnes": found.per_picture["brightness"]})


BY_SLICE = (
    "measure() of pictures that can only be counted and sliced, as `distillkit eval` gives them, "
    "raised "
)


class Covariance(ExampleMetricsConfig):
    """Needs more pictures than `num_images` asks for."""

    def build(self) -> Any:
        part = super().build()
        sound = part.compute

        def compute(images: Any, prompts: Any, teacher: Any) -> Any:
            torch.linalg.cholesky(torch.eye(1)) if len(images) > 6 else torch.linalg.inv(
                torch.zeros(1, 1)
            )
            return sound(images, prompts, teacher)

        object.__setattr__(part, "compute", compute)
        return part


class EnoughCovariance(Covariance):
    num_images: int = Field(2000, ge=7)


METRICS: Flaws = {
    "an old reference": (computed(remembering), "or keeps something of an earlier call"),
    "one prompt": (asked(lambda s, n, seed: ["few"]), "should give eight lines of text"),
    "a tuple": (asked(lambda s, n, seed: tuple(s(n, seed))), "lines of text, in a list"),
    "always eight": (
        asked(lambda s, n, seed: s(8, seed)),
        "prompts(1, seed): should give one line of text, in a list",
    ),
    "no seed": (
        asked(lambda s, n, seed: ["same"] * n),
        "do not depend on the seed, so that training's own could be among them",
    ),
    "global generator": (
        asked(lambda s, n, seed: s(n, int(torch.randint(10**9, ())))),
        "prompts(): differ between two calls with the same seed",
    ),
    "none": (computed(lambda s, *a: {}), "compute(): gave none"),
    "no names": (computed(lambda s, *a: [1.0]), "compute(): should give values by name"),
    "nan": (computed(lambda s, *a: s(*a) | {"distance": float("nan")}), "'distance' is nan, not"),
    "a tensor": (
        computed(lambda s, p, *a: s(p, *a) | {"distance": p.mean()}),
        "compute(): 'distance' is tensor(",
    ),
    "undeclared": (
        computed(lambda s, *a: s(*a) | {"a": 1.0}),
        "compute(): 'a' has no entry in `info`",
    ),
    "declared and missing": (
        computed(lambda s, *a: {"distance": 1.0}),
        "compute(): gave no 'brightness', which `info` declares",
    ),
    "flaky": (
        computed(lambda s, *a: s(*a) | {"distance": float(torch.rand(()))}),
        "compute(): differs between two calls with the same pictures",
    ),
    "in place": (computed(brightened), "compute(): wrote into the pictures"),
    "few pictures": (
        Covariance(),
        "compute() with 2 pictures, which `num_images` allows raised",
    ),
    "nan of two": (
        computed(lambda s, p, *a: s(p, *a) | {"distance": float("nan") if len(p) < 3 else 1.0}),
        "'distance' is nan, not a finite number with 2 pictures, which `num_images` allows",
    ),
    "direction": (
        informed(lambda info: {n: replace(i, better="less") for n, i in info.items()}),
        "info: 'distance' has better='less'; it is one of lower, higher, teacher",
    ),
    "no title": (
        informed(lambda info: {n: replace(i, title="") for n, i in info.items()}),
        "info: 'distance' should have a title and a description",
    ),
    "titles alone": (
        informed(lambda info: {n: i.title for n, i in info.items()}),
        "info: 'distance' is a str, not a MetricInfo",
    ),
    "info as a list": (informed(list), "info: is a list, not a mapping of names to MetricInfo"),
    "measures a tensor": (
        measured(lambda s, p, *a: sliced(s, p, *a) if p.mean() else None),
        BY_SLICE + "AttributeError: ",
    ),
    "measures one by one": (
        measured(lambda s, p, *a: [x.mean() for x in p] and sliced(s, p, *a)),
        f"{BY_SLICE}TypeError: pictures are taken by slices, such as images[0:1] ({__file__}:",
    ),
    "measures otherwise by slice": (
        measured(by_kind),
        "measure(): finds other values in pictures that are read by slices than in a tensor",
    ),
    "measures in place": (
        measured(dims),
        "measure(): wrote into the pictures, which other metrics judge too",
    ),
    "single values of nothing": (
        measured(renames),
        "measure(): has the pictures' own values of 'brightnes', and `values` has no 'brightnes'",
    ),
    "no measurement": (
        measured(lambda s, *a: sliced(s, *a).values),
        "measure(): is a dict, not a Measurement",
    ),
    "an exception": (
        computed(lambda s, *a: a[3]),
        f"compute() raised IndexError: tuple index out of range ({__file__}:",
    ),
}


@table(METRICS)
def test_a_flaw_of_metrics_is_found(config: ComponentConfig, finding: str) -> None:
    assert finding in said_of(config)


def test_metrics_that_need_more_pictures_say_so_in_a_bound() -> None:
    testing.check(EnoughCovariance())


def test_metrics_that_measure_by_slices_are_sound() -> None:
    testing.check(measured(sliced))


def test_pictures_have_the_teachers_size_or_are_64_wide() -> None:
    seen = set()

    def look(sound: Any, images: Any, *rest: Any) -> Any:
        seen.add(tuple(images.shape[2:]))
        return sound(images, *rest)

    testing.check(computed(look))
    testing.check(computed(look), teacher=ExampleTeacherConfig(side=12).build())
    assert seen == {(64, 64), (12, 12)}


def test_metrics_of_trainings_own_prompts_are_found_in_a_run() -> None:
    ours = asked(lambda s, n, seed: ["a red ring", f"a prompt, number {seed}"] * (n // 2))
    with pytest.raises(AssertionError) as caught:
        testing.check_run(ours)
    said = (
        "metrics 'example': prompts() gave 32 of 64 that are training's own, such as 'a red ring'"
    )
    assert said in str(caught.value)

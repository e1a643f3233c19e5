"""Contract of metrics. Legend: B pictures, H, W pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_type_hints

import torch
from pydantic import ValidationError
from torch import Tensor

from distillkit.configs import ComponentConfig, MetricsConfig
from distillkit.testing.building import built
from distillkit.testing.findings import Findings, calling, each, noise
from distillkit.values import Measurement, MetricInfo

COUNT = 8
BETTER = get_args(get_type_hints(MetricInfo)["better"])


def metrics_findings(config: ComponentConfig, size: tuple[int, int]) -> Findings:
    """Held-out prompts, and metrics that are declared, finite, and the same twice.

    `size`: height and width of the pictures.
    """
    part, twin = (built(config, process=p) for p in (1, 2))
    fewest = _fewest(config)
    yield from each(
        _prompts(part, twin),
        _info(part),
        _values(part, twin, max(COUNT, fewest), size),
        _few(part, fewest, size),
        _measured(part, max(COUNT, fewest), size),
    )


def _fewest(config: ComponentConfig) -> int:
    """The smallest `num_images` that the config allows, in steps of a factor of 2."""
    count, fields = 2, config.model_dump()
    while isinstance(config, MetricsConfig) and count < config.num_images:
        try:
            type(config).model_validate(fields | {"num_images": count})
        except ValidationError:
            count *= 2
        else:
            break
    return count


def _prompts(part: Any, twin: Any) -> Findings:
    """As many as asked for, of the seed alone."""
    asked = part.prompts(COUNT, 3)
    for count in (COUNT, 1):
        found = part.prompts(count, 3)
        lines = isinstance(found, list) and all(isinstance(p, str) and p.strip() for p in found)
        if not lines or len(found) != count:
            words = "eight lines" if count == COUNT else "one line"
            yield f"prompts({count}, seed): should give {words} of text, in a list"
            return
    if asked != part.prompts(COUNT, 3):
        yield "prompts(): differ between two calls with the same seed"
    elif asked != twin.prompts(COUNT, 3):
        yield "prompts(): differ between two processes with the same seed"
    if asked == part.prompts(COUNT, 4):
        yield "prompts(): do not depend on the seed, so that training's own could be among them"


def _info(part: Any) -> Findings:
    """Every metric has a title, a meaning and a direction."""
    if not isinstance(part.info, Mapping):
        yield f"info: is a {type(part.info).__name__}, not a mapping of names to MetricInfo"
        return
    for name, info in part.info.items():
        if not isinstance(info, MetricInfo):
            yield f"info: {name!r} is a {type(info).__name__}, not a MetricInfo"
            continue
        if info.better not in BETTER:
            yield f"info: {name!r} has better={info.better!r}; it is one of {', '.join(BETTER)}"
        if not all(isinstance(t, str) and t for t in (info.title, info.description)):
            yield f"info: {name!r} should have a title and a description"


def _values(part: Any, twin: Any, count: int, size: tuple[int, int]) -> Findings:
    """Finite numbers, of the pictures alone, which stay as they are."""
    asked, (images_B3HW, teacher_B3HW) = part.prompts(count, 3), _pictures(count, size)
    before = images_B3HW.clone(), teacher_B3HW.clone()
    values = part.compute(images_B3HW, asked, teacher_B3HW)
    if not isinstance(values, Mapping) or not values:
        yield "compute(): gave none" if not values else "compute(): should give values by name"
        return
    if undeclared := sorted(values.keys() - part.info.keys()):
        yield f"compute(): {undeclared[0]!r} has no entry in `info`"
    if missing := sorted(part.info.keys() - values.keys()):
        yield f"compute(): gave no {missing[0]!r}, which `info` declares"
    yield from _finite(values, part.info, "")
    if not all(map(torch.equal, before, (images_B3HW, teacher_B3HW))):
        yield "compute(): wrote into the pictures, which other metrics judge too"
        return
    # Other pictures in between: a part may keep nothing of an earlier call, such as its reference.
    twin.compute(teacher_B3HW, asked, images_B3HW)
    for other in (part, twin):
        again = other.compute(images_B3HW, asked, teacher_B3HW)
        if _told(values) != _told(again):
            yield (
                "compute(): differs between two calls with the same pictures: it draws at random, "
                "or keeps something of an earlier call"
            )
            return


def _few(part: Any, count: int, size: tuple[int, int]) -> Findings:
    """As few pictures as the config allows."""
    asked, (images_B3HW, teacher_B3HW) = part.prompts(count, 3), _pictures(count, size)
    where = f"with {count} pictures, which `num_images` allows"
    with calling(f"compute() {where}"):
        values = part.part.compute(images_B3HW, asked, teacher_B3HW)
    yield from _finite(values, part.part.info, f" {where}")


class _Sliced:
    """`contracts.Pictures` and nothing beyond: what a folder of files can be asked for."""

    def __init__(self, images_B3HW: Tensor) -> None:
        self._images_B3HW = images_B3HW

    def __len__(self) -> int:
        return len(self._images_B3HW)

    def __getitem__(self, rows: slice) -> Tensor:
        if not isinstance(rows, slice):
            raise TypeError("pictures are taken by slices, such as images[0:1]")
        return self._images_B3HW[rows]


def _measured(part: Any, count: int, size: tuple[int, int]) -> Findings:
    """The optional `measure` finds what `compute` finds, in a tensor and in pictures on disk."""
    if not hasattr(part.part, "measure"):
        return
    asked, pictures = part.prompts(count, 3), _pictures(count, size)
    values = part.compute(pictures[0], asked, pictures[1])
    before = [images_B3HW.clone() for images_B3HW in pictures]
    with calling("measure()"):
        found = part.part.measure(pictures[0], asked, pictures[1])
    if not all(map(torch.equal, before, pictures)):
        yield "measure(): wrote into the pictures, which other metrics judge too"
        return
    yield from _measurement(found, values, count)
    with calling(
        "measure() of pictures that can only be counted and sliced, as `distillkit eval` gives "
        "them,"
    ):
        sliced = part.part.measure(_Sliced(pictures[0]), asked, _Sliced(pictures[1]))
    both = all(isinstance(each_found, Measurement) for each_found in (found, sliced))
    if both and _told(sliced.values) != _told(found.values):
        yield "measure(): finds other values in pictures that are read by slices than in a tensor"


def _measurement(found: Any, values: Mapping[str, float], count: int) -> Findings:
    """Its values are those of `compute`; single values have a metric's mean."""
    if not isinstance(found, Measurement):
        yield f"measure(): is a {type(found).__name__}, not a Measurement"
        return
    if _told(found.values) != _told(values):
        yield "measure(): finds other values than compute()"
    for name, single in found.per_picture.items():
        if name not in found.values:
            yield (
                f"measure(): has the pictures' own values of {name!r}, and `values` has no "
                f"{name!r}: both are named by the metric, whose mean `values` has"
            )
            continue
        mean = sum(single) / max(len(single), 1)
        if len(single) != count or not math.isclose(mean, found.values[name], abs_tol=1e-4):
            yield f"measure(): the pictures' own values of {name!r} do not have its mean"


def _told(values: Mapping[str, Any]) -> dict[str, str]:
    """Values that can be compared: NaN equals NaN."""
    return {name: str(value) for name, value in values.items()}


def _finite(values: Mapping[Any, Any], info: Mapping[str, MetricInfo], where: str) -> Findings:
    """Numbers, and NaN of partial metrics alone."""
    for name, value in values.items():
        number = isinstance(name, str) and type(value) in (int, float)
        undefined = number and math.isnan(value) and name in info and info[name].partial
        if not number or not (math.isfinite(value) or undefined):
            yield f"compute(): {name!r} is {value!r}, not a finite number{where}"


def _pictures(count: int, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Of a student, and of a teacher."""
    shape = (count, 3, *size)
    return noise(shape, "fake").sigmoid(), noise(shape, "real").sigmoid()

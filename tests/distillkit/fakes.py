"""A registry and a recipe to read: the examples, and parts that are read and never built.

What the examples have not: two parts of one socket, a choice, a mapping, a mapping in a mapping,
validators of a whole part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator

from distillkit import configs
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.metrics import ExampleMetricsConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.prompts.files import JsonlPrompts, ListPrompts, TextPrompts
from distillkit.recipe.load import RecipeError, load_recipe
from distillkit.recipe.schema import Recipe
from distillkit.registry.entry_points import Installed
from distillkit.registry.registry import Origin
from distillkit.remarks import misfit


class Fake:
    def build(self, *args: Any) -> Any:
        return self


class View(configs.Config):
    crop: float = Field(1.0, gt=0, le=1)
    """Side of the crop."""


class FakePool(Fake, configs.PoolConfig):
    type: Literal["fake"] = "fake"
    timesteps: tuple[int, ...] = (10, 250)
    views: dict[str, View] = {}

    @model_validator(mode="after")
    def _rising(self) -> FakePool:
        if list(self.timesteps) != sorted(self.timesteps):
            raise misfit("timesteps should rise", "timesteps")
        if len(set(self.timesteps)) < len(self.timesteps):
            raise ValueError("timesteps should differ")
        return self


class Never(Fake, configs.RefreshConfig):
    type: Literal["never"] = "never"


class RandomRefresh(Fake, configs.RefreshConfig):
    """Replace a random share."""

    type: Literal["random"] = "random"
    fraction: float = Field(0.01, ge=0, le=1)
    """Share of the pool that is replaced."""


class Hinge(Fake, configs.LossConfig):
    type: Literal["hinge"] = "hinge"


class Distance(Fake, configs.LossConfig):
    type: Literal["distance"] = "distance"
    power: Literal["l1", "l2"] = "l2"


class FakeRefinement(Fake, configs.RefinementConfig):
    type: Literal["fake"] = "fake"
    stages: dict[int, int] = {1: 100}
    """Iterations by length of the roll-out."""


class Inner(configs.Config):
    share: float = Field(0.5, gt=0, lt=1)
    """A share."""


class Varied(configs.LossConfig):
    """One field of every kind; nobody registers it but the tests of such a part."""

    type: Literal["varied"] = "varied"
    label: str
    """A label."""
    norm: Literal["l1", "l2"] = "l2"
    levels: list[Annotated[int, Field(ge=0, le=999)]] = Field([1], min_length=1)
    pair: tuple[int, int] = (1, 2)
    stages: dict[int, int] = Field(min_length=1, examples=[{1: 5}])
    inner: Inner | None = None
    size: int = Field(64, ge=16, multiple_of=8)
    flag: bool = False
    rate: float = Field(gt=0)

    def build(self, *args: Any) -> Any: ...


PARTS: tuple[type[configs.ComponentConfig], ...] = (
    ListPrompts,
    TextPrompts,
    JsonlPrompts,
    ExampleTeacherConfig,
    ExampleStudentConfig,
    ExampleBackboneConfig,
    FakePool,
    Never,
    RandomRefresh,
    Hinge,
    Distance,
    FakeRefinement,
    ExampleMetricsConfig,
)


def fake_plugins() -> Installed:
    found = Installed()
    for config in PARTS:
        found.registry.add(config, Origin("fakes", "fakes", "1.0"))
    return found


RECIPE = """\
# A recipe of fakes.
prompts: {type: list, prompts: [a cat, "off", "1e-4"]}
teacher: {type: example, side: 4}
student: {type: example, timestep_shift: 500}
backbone: {type: example}
pool: {type: fake, timesteps: [10, 250], views: {whole: {crop: 1.0}}}
refresh: {type: random, fraction: 0.02}
losses:
  - {type: hinge, weight: 2}
  - {type: distance, power: l1}
refinement: {type: fake, stages: {1: 600, 2: 200}}
warmup: {student: 5, losses: [{type: distance}]}
optim:
  student: {lr: 1e-5}
  critic: {lr: 1e-4, clip: 1}
metrics: {type: example, num_images: 10}
run: {batch: 16}
"""


def load(text: str | bytes, *overrides: str, folder: Path) -> Recipe:
    """The recipe of this text, read from `my.yaml` in `folder` with `fake_plugins` installed."""
    file = folder / "my.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_recipe(file, overrides, fake_plugins()).recipe


def problems(text: str | bytes, *overrides: str, folder: Path) -> list[str]:
    """The lines that `load` fails with, without the folder."""
    with pytest.raises(RecipeError) as caught:
        load(text, *overrides, folder=folder)
    return str(caught.value).replace(f"{folder}/", "").split("\n")

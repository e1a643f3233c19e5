"""Parts that only their recipes see: one for every socket, and two losses and refreshes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from distillkit import configs
from distillkit.prompts.files import JsonlPrompts, ListPrompts, TextPrompts
from distillkit.recipe.part import misfit
from distillkit.registry.entry_points import Installed
from distillkit.registry.registry import Origin


class Fake:
    def build(self, *args: Any) -> Any:
        return self


class FakeTeacher(Fake, configs.TeacherConfig):
    """A teacher."""

    type: Literal["fake"] = "fake"
    steps: int = Field(8, ge=1)
    """Solver steps."""


class FakeStudent(Fake, configs.StudentConfig):
    type: Literal["fake"] = "fake"


class FakeBackbone(Fake, configs.BackboneConfig):
    type: Literal["fake"] = "fake"


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


class FakeMetrics(Fake, configs.MetricsConfig):
    type: Literal["fake"] = "fake"


PARTS: tuple[type[configs.ComponentConfig], ...] = (
    ListPrompts,
    TextPrompts,
    JsonlPrompts,
    FakeTeacher,
    FakeStudent,
    FakeBackbone,
    FakePool,
    Never,
    RandomRefresh,
    Hinge,
    Distance,
    FakeRefinement,
    FakeMetrics,
)


def fake_plugins() -> Installed:
    found = Installed()
    for config in PARTS:
        found.registry.add(config, Origin("fakes", "fakes", "1.0"))
    return found


RECIPE = """\
# A recipe of fakes.
prompts: {type: list, prompts: [a cat, "off", "1e-4"]}
teacher: {type: fake, steps: 4}
student: {type: fake, timestep_shift: 500}
backbone: {type: fake}
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
metrics: {type: fake, pictures: 10}
run: {batch: 16}
"""

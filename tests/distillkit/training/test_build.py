"""From a recipe to its parts: one that raises in `build()` is told with its plugin and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from distillkit import testing
from distillkit.configs import ComponentConfig, PoolConfig, PromptsConfig, RefreshConfig
from distillkit.errors import UserError, notices
from distillkit.examples.student import ExampleStudentConfig
from distillkit.recipe.schema import AdamWConfig, OptimConfig, StudentAdamWConfig
from distillkit.registry.entry_points import Installed
from distillkit.registry.registry import Origin
from distillkit.training.build import build_part, build_parts
from tests.distillkit.world import (
    MeanGuessConfig,
    brought_by_theirs,
    made_up_loss,
    trainer,
    world_recipe,
)

THEIRS = Origin("theirs", "distillkit-theirs", "2.1")


class TornPool(PoolConfig):
    """Raises when it is built."""

    type: Literal["torn"] = "torn"

    def build(self, channels: tuple[int, ...], seed: int) -> Any:
        raise RuntimeError("no such head")


class Picky(RefreshConfig):
    """Asks for what the user can mend."""

    type: Literal["picky"] = "picky"

    def build(self) -> Any:
        raise UserError("refresh.every: more than the run has")


class Absent(RefreshConfig):
    """Forgets to return what it has built."""

    type: Literal["absent"] = "absent"

    def build(self) -> Any:
        return None


class Blank(PromptsConfig):
    """Gives nothing."""

    type: Literal["blank"] = "blank"

    def build(self) -> Any:
        return []


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Installed()
    for config in (TornPool, Picky, Absent, Blank):
        found.registry.add(config, THEIRS)
    monkeypatch.setattr("distillkit.training.build.installed", lambda: found)


def said(config: ComponentConfig) -> str:
    with pytest.raises(UserError) as caught:
        build_parts(testing.recipe(config))
    return str(caught.value)


def test_an_exception_in_build_names_part_package_version_and_line() -> None:
    assert said(TornPool()).startswith(
        "pool 'torn' of plugin 'theirs' (distillkit-theirs 2.1) failed in build(): "
        f"RuntimeError: no such head ({__file__}:"
    )


def test_a_part_that_no_plugin_registered_is_named_by_its_module() -> None:
    class Stray(TornPool):
        pass

    with pytest.raises(
        UserError, match=rf"pool 'torn' of {__name__} failed in build\(\): RuntimeError"
    ):
        build_part(Stray(), (1,), 0)


def test_a_build_that_returns_nothing_is_told() -> None:
    assert said(Absent()) == (
        "refresh 'absent' of plugin 'theirs' (distillkit-theirs 2.1) breaks its contract: "
        "build() returned None"
    )


def test_a_parts_own_sentence_stays_as_it_is() -> None:
    assert said(Picky()) == "refresh.every: more than the run has"


def test_a_student_without_a_parameter_that_trains_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Frozen(ExampleStudentConfig):
        def build(self, teacher: Any) -> Any:
            network = super().build(teacher)
            network.module.requires_grad_(False)
            return network

    brought_by_theirs(monkeypatch, Frozen())
    with pytest.raises(UserError) as caught:
        trainer(world_recipe(student=Frozen()), tmp_path)
    said = f"student 'example' of {THEIRS} has no parameter that trains: "
    assert str(caught.value).startswith(said)


def test_no_prompts_are_a_sentence() -> None:
    assert said(Blank()) == "prompts: 'blank' gave no prompt at all"


def test_a_recipe_without_the_torn_part_is_built() -> None:
    [critic] = build_parts(testing.recipe()).critics
    assert len(critic.pool.heads) > 0


NOBODY = {"pool": None, "backbone": None, "refresh": None, "losses": [MeanGuessConfig()]}
AUX = "optim.aux: has no effect, since no loss has networks of its own and no backbone trains"
CRITIC = "optim.critic: has no effect without critics"


@pytest.mark.parametrize(
    ("fields", "optim", "said"),
    [
        ({}, ("critic", "aux"), [AUX]),
        ({}, ("critic",), []),
        (NOBODY, ("critic", "aux"), [f"{CRITIC} and beside `aux`"]),
        (NOBODY, ("critic",), []),  # which the loss's network learns with
        (NOBODY | {"losses": [made_up_loss()]}, ("critic",), [CRITIC]),
    ],
)
def test_optimizers_of_nobody_are_noted(
    fields: dict[str, Any], optim: tuple[str, ...], said: list[str]
) -> None:
    """Which networks losses own is known when they are built."""
    optims = {name: AdamWConfig(lr=1e-3) for name in optim}
    found = OptimConfig(student=StudentAdamWConfig(lr=1e-3), **optims)  # type: ignore[arg-type]
    told: list[str] = []
    with notices(told.append):
        build_parts(world_recipe(optim=found, **fields))
    assert told == said

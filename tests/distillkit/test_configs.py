"""Configs: the string under a field is its description, wherever the config is defined."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from distillkit.configs import Config, RefreshConfig, StudentConfig
from distillkit.examples.student import ExampleStudentConfig


class Base(RefreshConfig):
    """A policy."""

    type: Literal["base"] = "base"
    share: float = Field(0.5, ge=0)
    """Share that is reset,
    of all heads."""
    every: int = 1
    """Iterations between."""
    silent: int = 0


class Derived(Base):
    """A policy with a field that means something else."""

    share: float = 1.0
    """Share of the drawn heads."""
    every: int = Field(2, description="Iterations.")


def test_docstrings_under_fields_are_descriptions() -> None:
    base = {name: field.description for name, field in Base.model_fields.items()}
    assert base["share"] == "Share that is reset,\nof all heads."
    assert (base["every"], base["silent"]) == ("Iterations between.", None)
    derived = {name: field.description for name, field in Derived.model_fields.items()}
    assert (derived["share"], derived["every"]) == ("Share of the drawn heads.", "Iterations.")


def test_inherited_fields_and_classes_in_functions_have_them_too() -> None:
    class Local(StudentConfig):
        type: Literal["local"] = "local"
        depth: int = 3
        """Blocks that train."""

    assert Local.model_fields["depth"].description == "Blocks that train."
    shift = Local.model_fields["timestep_shift"].description
    assert shift == StudentConfig.model_fields["timestep_shift"].description
    properties = Local.model_json_schema()["properties"]
    assert properties["depth"]["description"] == "Blocks that train."


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ([999, 999, 499, 249], "should fall, from noise to picture, like [999, 499, 249]"),
        ([249, 499, 749, 999], "like [999, 749, 499, 249]"),
        ([999, 499], "at least 4 items"),
        ([1000, 749, 499, 249], "less than or equal to 999"),
    ],
)
def test_noise_levels_of_a_student_fall(levels: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        ExampleStudentConfig.model_validate({"levels": levels})
    whole = ExampleStudentConfig.model_validate({"levels": [999.0, 700.5, 499, 249.0]}).levels
    assert [type(level) for level in whole] == [int, float, int, int]


class Numbers(Config):
    """Fields of every shape that a number may stand in."""

    plain: int = 0
    fraction: float | None = None
    either: bool | int = 0
    switch: bool = False
    said: str | int = 0
    levels: list[int | float] = []
    pair: tuple[bool, Annotated[float, Field(ge=0)]] = (True, 0.0)
    stages: dict[int, list[int]] = {}
    anything: Any = None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plain", True),
        ("fraction", False),
        ("said", True),
        ("levels", [1, True]),
        ("pair", [True, True]),
        ("stages", {1: [2, False]}),
        ("stages", {True: [2]}),
    ],
)
def test_true_and_false_are_no_numbers(field: str, value: Any) -> None:
    """pydantic takes them for 1 and 0."""
    with pytest.raises(ValueError, match=r"should be a number, not (true|false)"):
        Numbers.model_validate({field: value})


def test_true_and_false_stand_where_they_may() -> None:
    values = {"either": True, "switch": True, "pair": (True, 0.5), "anything": [True]}
    assert Numbers(**values).model_dump(include=set(values)) == values  # type: ignore[arg-type]
    assert Numbers(plain=3.0, levels=("4", 1.5)).levels == [4, 1.5]  # type: ignore[arg-type]

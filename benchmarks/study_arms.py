"""What a study's file says: its base recipe and its arms."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from distillkit.errors import UserError


class Arm(BaseModel):
    """One variant of the base recipe."""

    model_config = ConfigDict(extra="forbid")

    question: str
    set: list[str] = []
    """Overrides, as `distillkit run --set` takes them."""
    seeds: list[int] | None = None
    """None takes the study's."""
    recipe: str | None = None
    """Another recipe than the base."""
    against: str | None = None
    """The arm that it is compared with, seed by seed."""
    group: str = ""
    """Heading of the table that it stands in."""


class Study(BaseModel):
    """What `arms.yml` says."""

    model_config = ConfigDict(extra="forbid")

    base: str
    set: list[str] = []
    """Overrides of every arm, before its own."""
    results: str = "results"
    page: str | None = None
    seeds: list[int] = [0, 1, 2]
    columns: dict[str, str] = {"excess of the start's distance": "summary.excess_ratio"}
    """Title -> place of a number in a result, or `won ROW.METRIC`: the share of the way from the
    start's figure to the teacher's."""
    arms: dict[str, Arm]
    """In a file also the name of another study's, beside it, which has the same arms."""


def read_study(file: Path) -> Study:
    """Raises `UserError`."""
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(said, dict) and isinstance(said.get("arms"), str):
            other = file.parent / said["arms"]
            said["arms"] = yaml.safe_load(other.read_text(encoding="utf-8")).get("arms")
        study = Study.model_validate(said)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{file}: {error}") from None
    for name, arm in study.arms.items():
        if arm.against is not None and arm.against not in study.arms:
            raise UserError(f"{file}: arm '{name}' is against '{arm.against}', which is no arm")
    return study

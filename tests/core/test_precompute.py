"""`distillkit precompute` through the command, on the shapes teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from distillkit.cli import build
from distillkit.errors import UserError


def flags(folder: Path) -> list[str]:
    short = {
        "prompts.count": 16,
        "samples.count": 6,
        "samples.batch": 4,
        "samples.cache": folder,
        "metrics.pictures": 4,
        "teacher.steps": 2,
    }
    return [word for key, value in short.items() for word in ("--set", f"{key}={value}")]


def test_it_fills_what_training_and_figures_read_and_then_has_nothing_to_do(tmp_path: Path) -> None:
    command = ["precompute", "recipes/nitro_shapes.yaml", *flags(tmp_path)]
    done = CliRunner().invoke(build(), command)
    assert done.exit_code == 0, done.output
    for words in ("training's samples", "figures' samples", "reference's samples", "GB in"):
        assert words in done.output
    shards = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")}
    assert len(shards) == 4  # two of training's six samples, one of each set of four
    again = CliRunner().invoke(build(), command)
    assert again.exit_code == 0, again.output
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.safetensors")} == shards


def test_a_recipe_without_a_cache_is_refused() -> None:
    command = ["precompute", "recipes/nitro_shapes.yaml", "--set", "samples.cache=null"]
    with pytest.raises(UserError, match=r"samples.cache names no folder to fill"):
        CliRunner().invoke(build(), command, catch_exceptions=False)

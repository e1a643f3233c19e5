"""The disk that a plan speaks of is what a run writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distillkit import api
from distillkit.memory.disk import disk_of
from distillkit.memory.dry_run import dry_run
from distillkit.recipe.schema import Recipe, RunConfig
from tests.distillkit.world import MeanGuessConfig, world_recipe

HEADS = {"timesteps": [10, 500], "heads_per_slot": 2, "width": 16, "depth": 1}


def recipe(**changes: Any) -> Recipe:
    """Every head is stepped in the first iteration, and so has its moments."""
    fields: dict[str, Any] = {
        "pool": {"type": "dynamic", "draw": "all", "draw_heads": "all"} | HEADS,
        "refresh": None,  # which would delete moments
        "losses": [{"type": "hinge"}, MeanGuessConfig()],
        "refinement": {"type": "bottom-up", "stages": {1: 2, 2: 1}},
        "run": RunConfig(batch=2, checkpoint_every=1, keep_checkpoints=3, previews=1, threads=1),
    }
    return world_recipe(**fields | changes)


def of_tensors(files: Any) -> int:
    return sum(t.nbytes for file in files for t in load_file(file).values())


def test_checkpoints_and_snapshots_are_those_of_a_run(tmp_path: Path) -> None:
    sizes = disk_of(recipe(), dry_run(recipe()))
    run = api.train(recipe(), tmp_path / "run")
    last = sorted(run.checkpoints.iterdir())[-1]
    counts = load_file(last / "progress.safetensors")  # a few numbers, which no plan is about
    written = of_tensors(last.glob("*.safetensors")) - sum(t.nbytes for t in counts.values())
    assert sizes["checkpoints: 3 kept, 1 being written"] == 4 * written
    snapshots = list((run.path / "snapshots").iterdir())
    assert {file.stem for file in snapshots} == {"start", "1-step", "2-step"}
    assert sizes["snapshots: 3"] == of_tensors(snapshots)
    assert len(sizes) == 2


@pytest.mark.parametrize(("dtype", "embeds"), [("float32", False), ("float16", True)])
def test_the_cache_is_that_of_a_run(tmp_path: Path, dtype: str, embeds: bool) -> None:
    samples = {"count": 9, "cache": str(tmp_path / "cache"), "dtype": dtype, "batch": 4}
    cached = recipe(samples=samples | {"cache_prompt_embeds": embeds})
    sizes = disk_of(cached, dry_run(cached))
    api.train(cached, tmp_path / "run")
    assert sizes["teacher samples: 9"] == of_tensors((tmp_path / "cache").glob("*.safetensors"))
    shipped = recipe(samples=samples | {"cache": "package:distillkit/nothing"})
    assert "teacher samples: 9" not in disk_of(shipped, dry_run(shipped))

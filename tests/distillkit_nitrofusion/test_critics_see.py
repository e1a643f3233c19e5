"""Critics carry information: long-lived heads learn to tell a frozen student from its teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean

import pytest
from accelerate import Accelerator

from distillkit import api
from distillkit.samples.cache import training_cache

RECIPE = Path(__file__).parents[2] / "recipes" / "nitro_shapes.yaml"
CHANGES = (
    *("critics={}", "backbone={type: unet-encoder, levels: 5}"),
    "pool={type: static, views: [global-cond], timesteps: [150], levels: [0, 2, 4], width: 32, "
    "depth: 1, head: cell}",
    "warmup={critic: 100}",
    "run={batch: 16, seed: 0, threads: 1, held_out: 20}",
)


@pytest.mark.slow
def test_long_lived_heads_are_right_on_held_out_pairs(tmp_path: Path) -> None:
    """A hundred updates of 16 pictures against the shipped one-step weights, which do not move.

    On 80 pairs that no head has seen, new heads, of zeros, are right of half: all are ties.
    """
    recipe = api.load_recipe(RECIPE, CHANGES).recipe
    trainer = api.prepare(recipe, tmp_path, accelerator=Accelerator(cpu=True))
    state = trainer.state
    state.samples = replace(state.samples, cache=training_cache(recipe, state.samples))

    def right() -> float:
        assert trainer.held_out is not None
        return mean(trainer.held_out.measure(0, state)["held_out"].values())

    assert right() == 0.5
    for i in range(100):
        trainer.step(i)
    assert right() > 0.65

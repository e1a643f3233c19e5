"""Critics carry information: long-lived heads learn to tell a near student from its teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from distillkit import api
from distillkit.samples.cache import training_cache
from distillkit_shapes.teacher import ShapesTeacherConfig

RECIPE = Path(__file__).parents[2] / "recipes" / "nitro_shapes.yaml"
CHANGES = (
    "pool={type: static, views: [global-cond], timesteps: [150], levels: [0, 2, 4], width: 32, "
    "depth: 1}",
    *("refresh=null", "backbone.levels=5", "losses=[{type: relativistic-paired}]"),
    *("warmup={critic: 100}", "run={batch: 16, seed: 0, threads: 1, held_out: 20}"),
)


PICTURES = 400


class FewerSteps:
    """A student that never trains: the teacher itself, in `steps` steps instead of eight."""

    def __init__(self, steps: int, network: Any) -> None:
        self.teacher = ShapesTeacherConfig(steps=steps).build()
        self.network = network
        self.made: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def rollout(self, x_T_BCHW: Tensor, cond: Any, steps: int, renoise_SBCHW: Tensor) -> Tensor:
        keys = [x_T_CHW.numpy().tobytes() for x_T_CHW in x_T_BCHW]
        if new := [b for b, key in enumerate(keys) if key not in self.made]:
            generators = [torch.Generator() for _ in new]
            made_BCHW = self.teacher.sample(x_T_BCHW[new], cond.rows(new), generators)
            self.made |= dict(zip((keys[b] for b in new), made_BCHW, strict=True))
        return torch.stack([self.made[key] for key in keys])


@pytest.mark.slow
def test_long_lived_heads_are_right_on_held_out_pairs(tmp_path: Path) -> None:
    """A hundred updates of 16 pictures, of 400 that are noised anew each time, against the teacher
    in four steps, which follows captions nearly as well (93.6 % of them, 95.6 % in eight). On 80
    pairs that no head has seen, new heads, of zeros, are right of half, since all are ties.
    """
    recipe = api.load_recipe(RECIPE, CHANGES).recipe
    trainer = api.prepare(recipe, tmp_path, accelerator=Accelerator(cpu=True))
    state = trainer.state
    state.student = FewerSteps(4, state.student.network)  # type: ignore[assignment]
    cache = training_cache(recipe, state.samples)
    state.samples = replace(
        state.samples, cache=cache, order=replace(state.samples.order, count=PICTURES)
    )

    def right() -> float:
        assert trainer.held_out is not None
        return mean(trainer.held_out.measure(0, state)["held_out"].values())

    assert right() == 0.5
    for i in range(100):
        trainer.step(i)
    assert right() > 0.65

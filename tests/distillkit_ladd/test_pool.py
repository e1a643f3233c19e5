"""LADD's pool: continuous noise levels for every picture, every head every time."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from distillkit import api, testing
from distillkit.examples.refinement import ExampleRefinementConfig
from distillkit.randomness import generator
from distillkit.runs.folder import read_log
from distillkit_ladd.pool import ContinuousPool, ContinuousPoolConfig


def test_noise_levels_are_logit_normal_and_drawn_for_every_picture() -> None:
    """Of logit-normal(1, 1), the median is 999 * sigmoid(1) = 730.3."""
    pool = ContinuousPool((8, 4), width=16, location=1.0, scale=1.0, seed=0)
    [judged] = pool.draw(4000, generator(0, "panel", 0)).views
    assert judged.t_B.is_floating_point()
    assert float(judged.t_B.min()) >= 0
    assert float(judged.t_B.max()) <= 999
    assert abs(float(judged.t_B.median()) - 730.3) < 15
    assert [(d.level, d.head) for d in judged.heads] == [(0, 0), (1, 1)]


def test_a_run_trains_every_head(tmp_path: Path) -> None:
    recipe = testing.recipe(
        ContinuousPoolConfig(width=16), ExampleRefinementConfig(iterations=20), refresh=None
    )
    run = api.prepare(recipe, tmp_path, accelerator=Accelerator(cpu=True))
    [critic] = run.state.critics
    heads: nn.ModuleList = critic.pool.heads
    before = {name: p.detach().clone() for name, p in heads.named_parameters()}
    run.train()
    weights = [name for name in before if name.endswith("weight")]
    assert weights
    assert all(not torch.equal(before[n], heads.get_parameter(n)) for n in weights)
    rows = read_log(tmp_path / "log.jsonl")
    assert len(rows) == 20
    assert {name for row in rows for name in row["accuracy"]} == {"global-cond mixed t"}

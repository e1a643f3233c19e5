"""LADD's pool: continuous noise levels for every picture, every head every time."""

from __future__ import annotations

from pathlib import Path

import torch

from distillkit.randomness import generator
from distillkit.runs.folder import read_log
from distillkit_ladd.pool import LevelPool
from tests.core.test_training import everything, trainer
from tests.core.world import world_recipe


def test_noise_levels_are_logit_normal_and_drawn_for_every_picture() -> None:
    """Of logit-normal(1, 1), the median is 999 * sigmoid(1) = 730.3."""
    pool = LevelPool((8, 4), 16, location=1.0, scale=1.0, seed=0)
    [judged] = pool.draw(4000, generator(0, "panel", 0)).views
    assert judged.t_B.is_floating_point()
    assert float(judged.t_B.min()) >= 0
    assert float(judged.t_B.max()) <= 999
    assert abs(float(judged.t_B.median()) - 730.3) < 15
    assert [(s.level, s.head) for s in judged.heads] == [(0, 0), (1, 1)]


def test_a_run_trains_every_head(tmp_path: Path) -> None:
    pool = {"type": "continuous", "width": 16}
    run = trainer(world_recipe(pool=pool, refresh=None), tmp_path)
    before = everything(run)
    run.train()
    after = everything(run)
    weights = [k for k in before if k.startswith("heads.") and k.endswith("weight")]
    assert weights
    assert all(not torch.equal(before[k], after[k]) for k in weights)
    rows = read_log(tmp_path / "log.jsonl")
    assert {name for r in rows for name in r["accuracy"]} == {"global-cond mixed t"}

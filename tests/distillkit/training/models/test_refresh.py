"""Which iterations and updates a refresh policy counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.training.trainer import Trainer
from tests.distillkit.world import trainer, world_recipe

EXAMPLE = ExampleBackboneConfig()
POOL = {
    "type": "dynamic", "timesteps": [10, 500], "heads_per_slot": 2, "width": 16, "depth": 1,
    "zero_init": False,
}  # fmt: skip


def resets_of(run: Trainer, name: str = "") -> list[int]:
    """Heads that are reset in each iteration of a whole run in which the critic judges."""
    found: list[int] = []
    [critic] = [critic for critic in run.state.critics if critic.name == name]
    reset = critic.reset

    def counted(i: int, heads: Sequence[int], optimizer: Any) -> None:
        found.append(len(heads))
        reset(i, heads, optimizer)

    critic.reset = counted  # type: ignore[method-assign]
    run.train()
    return found


def test_a_critic_of_some_roll_outs_refreshes_by_its_own_iterations(tmp_path: Path) -> None:
    """Half of 24 heads every fifth time that it judges, whenever in the run that is."""
    critics = {
        "one": {"backbone": EXAMPLE, "pool": POOL, "steps": [1]},
        "two": {
            "backbone": EXAMPLE,
            "pool": POOL,
            "refresh": {"type": "random", "fraction": 0.5, "every": 5},
            "steps": [2],
        },
    }
    stages = {"type": "bottom-up", "stages": {1: 3, 2: 60}, "replay": 0.5}
    none: Any = {"backbone": None, "pool": None, "refresh": None}
    run = trainer(world_recipe(critics=critics, refinement=stages, **none), tmp_path)
    resets = resets_of(run, "two")
    assert 15 < len(resets) < 45
    assert resets == [12 if n % 5 == 4 else 0 for n in range(len(resets))]
    [_, two] = run.state.critics
    assert int(two.judged) == len(resets)
    assert int(two.stats().age_N.max()) <= len(resets) + 1


def test_a_head_that_no_loss_asks_is_told_as_such_and_keeps_its_life(tmp_path: Path) -> None:
    """Two steps train by a regression: heads are drawn there, and neither updated nor reset."""
    losses: Any = [{"type": "hinge", "steps": [1]}, {"type": "regression", "rollouts": "all"}]
    recipe = world_recipe(
        losses=losses,
        refresh={"type": "random", "updates_per_life": 1},
        refinement={"type": "bottom-up", "stages": {1: 4, 2: 16}, "replay": 0},
    )
    resets = resets_of(trainer(recipe, tmp_path))
    assert [n > 0 for n in resets] == [True] * 4 + [False] * 16

"""Updates in a head's life, counted on the run's own draws and picks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.memory.dry_run import dry_run
from distillkit.memory.head_life import HeadLives, count_judged, count_lives
from distillkit.recipe.load import dump_recipe
from distillkit.recipe.preflight import head_life
from tests.distillkit.launch import command
from tests.distillkit.world import world_recipe


def lives(refresh: Any, **pool: Any) -> HeadLives:
    """Of 24 heads, or as many as `pool` makes."""
    base = {"type": "dynamic", "timesteps": [10, 500], "heads_per_slot": 2, "width": 16, "depth": 1}
    recipe = world_recipe(pool=base | pool, refresh=refresh)
    dry = dry_run(recipe)
    [critic] = dry.state.critics
    return count_lives(critic, recipe.run.batch)


def test_what_is_counted_is_what_the_configs_tell() -> None:
    """1 of 2 heads at 1 of 2 t*: drawn in 1/4 of the iterations. 5 % reset: 20 iterations."""
    counted = lives({"type": "random", "fraction": 0.05})
    assert counted.heads == 24
    assert counted.updates == 500 * 6
    assert counted.resets == 600
    assert str(counted) == (
        "a head lives 20 iterations and is trained 5.0 times, counted over 500 iterations"
    )
    [critic] = world_recipe(refresh={"type": "random", "fraction": 0.05}).all_critics().values()
    assert str(head_life(critic)).startswith("a head lives 20 iterations and is trained 5.0 times")


def test_a_life_of_so_many_updates_has_them() -> None:
    counted = lives({"type": "random", "updates_per_life": 10})
    assert counted.updates / counted.resets == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize("refresh", [{"type": "never"}, None])
def test_heads_that_are_never_reset(refresh: Any) -> None:
    said = "trained 125.0 times and never reset, counted over 500 iterations"
    assert str(lives(refresh)) == said


def test_a_policy_by_accuracy_is_told_accuracies() -> None:
    counted = lives({"type": "accuracy", "fraction": 0.05, "min_updates": 2})
    assert 0 < counted.resets <= 600


def test_heads_of_every_picture_are_counted_with_the_runs_batch() -> None:
    counted = lives({"type": "random", "fraction": 0.05}, draw="per-picture")
    assert 500 * 6 < counted.updates < 500 * 12  # of four pictures some share their t*


def test_lives_of_a_critic_of_some_roll_outs_are_counted_in_its_own_iterations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], examples_installed: None
) -> None:
    """It judges in the second stage alone, in 16 of 20 iterations; a life there is longer."""
    pool = world_recipe().pool
    critics = {
        name: {
            "backbone": {"type": "example"},
            "pool": pool,
            "refresh": {"type": "random", "fraction": 0.05},
            "steps": [steps],
        }
        for name, steps in (("one", 1), ("two", 2))
    }
    fields: dict[str, Any] = {"backbone": None, "pool": None, "refresh": None}
    stages = {"type": "bottom-up", "stages": {1: 4, 2: 16}, "replay": 0}
    recipe = world_recipe(critics=critics, refinement=stages, **fields)
    dry = dry_run(recipe)
    assert [count_judged(critic, dry.schedule) for critic in dry.state.critics] == [4, 16]
    (tmp_path / "my.yaml").write_text(dump_recipe(recipe))
    assert command("plan", str(tmp_path / "my.yaml")) == 0
    assert "this critic judges in about 16 of the run's 20 iterations" in capsys.readouterr().out
    said = head_life(recipe.critics["two"])
    assert (
        said == "a head lives 20 of this critic's iterations and is trained 5.0 times, on average"
    )


@pytest.mark.parametrize(("every", "said"), [
    (300, "a head lives 300 iterations and is trained 75.0 times, counted over 300 iterations"),
    (600, "a head lives 600 iterations and is trained 150.0 times, counted over 600 iterations"),
    (1, "a head lives 1 iterations and is trained 0.2 times, counted over 500 iterations"),
])  # fmt: skip
def test_full_resets(every: int, said: str) -> None:
    """All heads at once, of which 1 in 4 is drawn an iteration: 300 / 4 and 600 / 4 updates. New
    ones in every iteration: 6 of 24 heads are trained once before they go."""
    refresh = {"type": "random", "fraction": 1.0, "every": every}
    assert str(lives(refresh)) == said
    [critic] = world_recipe(refresh=refresh).all_critics().values()
    assert said.startswith(str(head_life(critic)).partition(",")[0])

"""A critic: what a refresh policy is told of every head; and several critics in one run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from distillkit.configs import RefreshConfig
from distillkit.errors import UserError
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.randomness import generator, key_to_seed
from distillkit.recipe.schema import AdamWConfig, OptimConfig, Recipe, RunConfig, StudentAdamWConfig
from distillkit.runs.folder import read_log
from distillkit.training.metrics import StepMetrics
from distillkit.training.models.critic import Critic
from distillkit.values import HeadLogits, HeadStats
from tests.distillkit.world import (
    assert_same,
    everything,
    head_logits,
    iteration_spec,
    trainer,
    world_recipe,
)

EXAMPLE = ExampleBackboneConfig()
KEEP_ALL = RunConfig(batch=4, checkpoint_every=5, keep_checkpoints=9)


class Watching:
    """Keeps what it is told; resets head 3 after iteration 4, and nothing else."""

    def __init__(self) -> None:
        self.told: list[HeadStats] = []

    def pick(self, iteration: int, heads: HeadStats, generator: Any) -> Sequence[int]:
        self.told.append(heads)
        return [3] if iteration == 4 else []


class WatchingConfig(RefreshConfig):
    """For tests of what a policy is told."""

    type: Literal["watching"] = "watching"

    def build(self) -> Any:
        return Watching()


def bare_critic(heads: int) -> Critic:
    """A critic that counts, of a pool with nothing in it."""
    parts: Any = SimpleNamespace(heads=[None] * heads)
    return Critic(parts, parts, None, parts, seed=0)


def scores_of(*micro_batches: list[HeadLogits]) -> dict[int, tuple[float, float]]:
    metrics = StepMetrics(iteration_spec())
    for logits in micro_batches:
        metrics.add_critic(torch.tensor(0.0), logits)
    metrics.read(SimpleNamespace(device="cpu", num_processes=1))
    return metrics.head_scores("")


def test_accuracy_is_summed_over_views_micro_batches_and_iterations() -> None:
    """Head 1: 7 of 10, then 4 of 10 and 1 of 10: 12 of 30. Head 2: 10 of 10. Head 0: not seen."""
    critic = bare_critic(3)
    critic.count(scores_of([head_logits("a", 10, wins=7, head=1)]))
    second = [head_logits("a", 10, wins=4, head=1), head_logits("a", 10, wins=10, head=2)]
    critic.count(scores_of(second, [head_logits("b", 500, wins=1, head=1)]))
    critic.learned_N[1] = True
    critic.judged += 9
    stats = critic.stats()
    assert stats.accuracy_N[1:].tolist() == pytest.approx([0.4, 1.0])
    assert bool(stats.accuracy_N[0].isnan())
    assert stats.learned_N.tolist() == [False, True, False]
    assert stats.age_N.tolist() == [10, 10, 10]
    assert len(stats) == 3


def watched(folder: Path, run: RunConfig) -> tuple[Any, list[HeadStats]]:
    """A run whose policy keeps what it is told, and where it keeps that."""
    made = trainer(world_recipe(refresh=WatchingConfig(), run=run), folder)
    [critic] = made.state.critics
    policy: Any = critic.refresh
    return made, policy.told


def test_updates_and_ages_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Of ten iterations: a head's updates are the panels that it was in since its reset."""
    run, told = watched(tmp_path, RunConfig(batch=4))
    [critic] = run.state.critics
    updates, age = [0] * 24, [0] * 24
    for i in range(10):
        drawn = critic.pool.draw(4, generator(0, "panel", i)).head_ids
        run.step(i)
        for head in range(24):
            updates[head] += head in drawn
            age[head] += 1
        assert told[i].updates_N.tolist() == updates
        assert told[i].age_N.tolist() == age
        assert told[i].learned_N.nonzero().flatten().tolist() == drawn
        seen = [bool(a == a) for a in told[i].accuracy_N]
        assert seen == [n > 0 for n in updates]
        if i == 4:
            updates[3] = age[3] = 0
    assert max(updates) > 2
    known = told[9].accuracy_N[~told[9].accuracy_N.isnan()]
    assert 0 <= float(known.min()) < float(known.max()) <= 1


def test_micro_batches_are_told_as_one_batch(tmp_path: Path) -> None:
    stats = []
    for run in (RunConfig(batch=8), RunConfig(batch=2, accumulate=4)):
        made, told = watched(tmp_path, run)
        made.step(0)
        stats.append(told[0])
    for field in ("age_N", "updates_N", "learned_N"):
        assert torch.equal(*(getattr(each, field) for each in stats)), field
    torch.testing.assert_close(*(each.accuracy_N for each in stats), equal_nan=True)


def forget_after(folder: Path, iteration: int) -> None:
    """Delete the later checkpoints of a run."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > iteration:
            shutil.rmtree(path)


def test_a_resumed_run_tells_what_an_unbroken_one_does(tmp_path: Path) -> None:
    whole, told = watched(tmp_path, KEEP_ALL)
    whole.train()
    forget_after(tmp_path, 10)
    resumed, again = watched(tmp_path, KEEP_ALL)
    resumed.train(resume=True)
    assert (len(told), len(again)) == (20, 10)
    for one, other in zip(told[10:], again, strict=True):
        for field in ("age_N", "updates_N", "learned_N"):
            assert torch.equal(getattr(one, field), getattr(other, field)), field
        assert torch.equal(one.accuracy_N.nan_to_num(-1), other.accuracy_N.nan_to_num(-1))


def pool(**fields: Any) -> dict[str, Any]:
    base = {"type": "dynamic", "timesteps": [10, 500], "heads_per_slot": 2, "width": 16, "depth": 1}
    return base | {"zero_init": False} | fields


def two_critics(**changes: Any) -> Recipe:
    """One with a pool that is refreshed, and one with another width and none."""
    narrow = ExampleBackboneConfig(width=6)
    critics = {
        "near": {"backbone": EXAMPLE, "pool": pool(), "refresh": {"type": "random"}},
        "far": {"backbone": narrow, "pool": pool(views=["global-uncond"])},
    }
    fields = {"critics": critics, "backbone": None, "pool": None, "refresh": None}
    return world_recipe(**fields | {"run": KEEP_ALL} | changes)


def test_two_critics_train_in_one_run_and_resume_bit_for_bit(tmp_path: Path) -> None:
    whole = trainer(two_critics(), tmp_path)
    before = everything(whole)
    whole.train()
    after = everything(whole)
    for part in ("student.", "heads-near.", "heads-far."):
        assert any(not torch.equal(after[k], v) for k, v in before.items() if k.startswith(part))
    forget_after(tmp_path, 10)
    resumed = trainer(two_critics(), tmp_path)
    resumed.train(resume=True)
    assert_same(after, everything(resumed))
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["iteration"] for row in rows] == list(range(20))
    views = {key.split(" t")[0] for row in rows for key in row["accuracy"]}
    assert views == {
        "near: global-cond", "near: local-cond", "near: local-uncond", "far: global-uncond",
    }  # fmt: skip


def test_a_critic_judges_the_roll_outs_that_it_is_for(tmp_path: Path) -> None:
    """Of each length its own; where nobody judges a length, the run says so."""
    stages = {"type": "bottom-up", "stages": {1: 3, 2: 9}, "replay": 0.5}
    critics = {
        "one": {"backbone": EXAMPLE, "pool": pool(), "steps": [1]},
        "two": {"backbone": EXAMPLE, "pool": pool(), "steps": [2, 4]},
    }
    trainer(two_critics(critics=critics, refinement=stages), tmp_path / "a").train()
    rows = [row for row in read_log(tmp_path / "a" / "log.jsonl") if row["accuracy"]]
    judged = {row["steps"]: {key.split(":")[0] for key in row["accuracy"]} for row in rows}
    assert judged == {1: {"one"}, 2: {"two"}}
    del critics["two"]
    alone = trainer(two_critics(critics=critics, refinement=stages), tmp_path / "b")
    with pytest.raises(UserError, match="critics: none judges roll-outs of length 2"):
        alone.train()


def weights_of(heads: Any) -> Tensor:
    """All numbers of these heads in one row."""
    return torch.cat([p.detach().flatten() for p in heads.parameters()])


def test_every_critic_has_keys_of_its_own_and_the_only_one_the_old_ones(tmp_path: Path) -> None:
    """Two critics with equal parts: other heads, other draws, other picks, other resets."""
    equal = {"backbone": EXAMPLE, "pool": pool(), "refresh": {"type": "random"}}
    both = two_critics(critics={"a": equal, "b": equal})
    a, b = trainer(both, tmp_path).state.critics
    [only] = trainer(world_recipe(pool=pool()), tmp_path).state.critics
    drawn, weights = [], []
    for critic, name in ((a, ["a"]), (b, ["b"]), (only, [])):
        seed = key_to_seed(0, "heads", *name)
        built = both.critics["a"].pool.build(critic.backbone.channels, seed)
        assert torch.equal(weights_of(built.heads), weights_of(critic.pool.heads))
        weights.append(weights_of(critic.pool.heads))
        drawn.append([critic.draw(i, 4).head_ids for i in range(5)])
        stats, refresh = critic.stats(), critic.refresh
        assert refresh is not None
        for i in range(5):
            panel = critic.pool.draw(4, generator(0, "panel", i, *name))
            assert panel.head_ids == drawn[-1][i]
            picked = refresh.pick(i, stats, generator(0, "refresh", i, *name))
            assert critic.pick(i, stats) == list(picked)
        critic.reset(7, [5], None)
        reset = weights_of(critic.pool.heads[5])
        critic.pool.reset([5], generator(0, "reset", 7, *name))
        assert torch.equal(weights_of(critic.pool.heads[5]), reset)
    for found in (drawn, [row.tolist() for row in weights]):
        assert len({str(each) for each in found}) == 3


def test_losses_see_the_logits_of_all_critics(tmp_path: Path) -> None:
    """Both critics' heads get gradients from one loss; each head is stepped once."""
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-3), critic=AdamWConfig(lr=1e-2, betas=(0.9, 0.99))
    )
    run = trainer(two_critics(optim=optim), tmp_path)
    near, far = run.state.critics
    near.refresh = None
    run.step(0)
    for critic in (near, far):
        drawn = critic.draw(0, 4).head_ids
        assert critic.updates_N.nonzero().flatten().tolist() == drawn
        state = run.state.critic_optimizer.state  # type: ignore[union-attr]
        assert all(int(state[p]["step"]) == 1 for p in critic.parameters(drawn))


def test_critics_beside_the_short_form_are_refused() -> None:
    with pytest.raises(ValidationError, match="critics: are given beside `pool`; name all of them"):
        two_critics(pool=pool(), backbone=EXAMPLE)

"""The batch that losses see: made when a loss asks for it, with draws that no split changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillkit.recipe.schema import RunConfig
from distillkit.training.models.batch import LazyTrainBatch
from distillkit.training.step import make_batch
from distillkit.values import Condition
from tests.distillkit.world import made_up_loss, trainer, world_recipe


def batch_of(positions: range, **changes: Any) -> LazyTrainBatch:
    """A batch whose samples are zeros."""
    x_BCHW = torch.zeros(len(positions), 4, 8, 8)
    fields: dict[str, Any] = {
        "iteration": 5,
        "x_T_BCHW": x_BCHW,
        "cond": Condition({}),
        "null": Condition({}),
        "make_real": lambda: x_BCHW,
        "make_fake": lambda: x_BCHW,
        "steps": 1,
        "positions": positions,
        "seed": 0,
    }
    return LazyTrainBatch(**fields | changes)


def refuse() -> Tensor:
    raise AssertionError("nobody asked for it")


def test_nothing_is_made_for_losses_that_ask_for_nothing() -> None:
    batch = batch_of(range(3), make_real=refuse, make_fake=refuse)
    assert batch.noise("a").shape == (3, 4, 8, 8)
    assert batch.timesteps("a", 0, 10).shape == (3,)
    assert (batch.iteration, batch.critic_logits(), batch.student_logits()) == (5, [], [])
    assert batch.judged_logits() == []


def test_samples_are_made_once() -> None:
    made: list[str] = []

    def make(name: str) -> Any:
        def now() -> Tensor:
            made.append(name)
            return torch.zeros(1, 4, 8, 8)

        return now

    batch = batch_of(range(1), make_real=make("real"), make_fake=make("fake"))
    assert batch.real_BCHW is batch.real_BCHW
    assert batch.fake_BCHW is batch.fake_BCHW
    assert made == ["real", "fake"]


def test_the_fake_is_a_leaf_whose_gradient_stays_out_of_the_student() -> None:
    weight = torch.tensor(2.0, requires_grad=True)
    batch = batch_of(range(2), make_fake=lambda: weight * torch.ones(2, 4, 8, 8))
    batch.fake_BCHW.sum().backward()
    assert batch.fake_BCHW.is_leaf
    assert torch.equal(batch.fake_BCHW.grad, torch.ones(2, 4, 8, 8))
    assert weight.grad is None
    batch.rollout_BCHW.backward(batch.fake_BCHW.grad)
    assert float(weight.grad) == 2 * 4 * 8 * 8
    with torch.no_grad():
        frozen = batch_of(range(2), make_fake=lambda: weight * torch.ones(2, 4, 8, 8))
        assert not frozen.fake_BCHW.requires_grad


def test_draws_are_keyed_by_the_picture_and_the_purpose() -> None:
    """In a batch of four and in batches of one, three, at any call and in any order."""
    whole = batch_of(range(8, 12))
    noise, t_B = whole.noise("score"), whole.timesteps("score", 20, 981)
    first, rest = batch_of(range(8, 9)), batch_of(range(9, 12))
    late = rest.timesteps("score", 20, 981)
    for split, rows in ((first, slice(0, 1)), (rest, slice(1, 4))):
        assert torch.equal(split.noise("score"), noise[rows])
        assert torch.equal(split.timesteps("score", 20, 981), t_B[rows])
    assert torch.equal(late, t_B[1:])
    assert len(noise.flatten(1).unique(dim=0)) == 4
    assert not torch.equal(whole.noise("other"), noise)
    assert not torch.equal(whole.timesteps("other", 20, 981), t_B)
    assert not torch.equal(batch_of(range(8, 12), seed=1).noise("score"), noise)


def test_timesteps_cover_their_range_alike() -> None:
    """4,000 draws of 3 to 7: each of the five 800 times, std 25."""
    t_B = batch_of(range(4000)).timesteps("score", 3, 8)
    counts = torch.bincount(t_B, minlength=9)
    assert t_B.dtype == torch.int64
    assert counts[3:8].sum() == 4000
    assert (counts[3:8] - 800).abs().max() < 4 * 25.3


def count_calls(owner: Any, method: str) -> list[int]:
    """A list that grows with every call of the bound method."""
    calls: list[int] = []
    inner = getattr(owner, method)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return inner(*args, **kwargs)

    setattr(owner, method, counted)
    return calls


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([{"type": "hinge"}], (2, 2, 2)),
        ([{"type": "regression"}], (2, 2, 0)),
        ([{"type": "hinge"}, {"type": "regression"}], (2, 2, 2)),
        ([made_up_loss(lambda b: None, lambda b: b.fake_BCHW.square().mean())], (0, 2, 0)),
    ],
    ids=["adversarial", "regression alone", "both", "fake alone"],
)
def test_a_run_makes_what_its_losses_need_and_no_more(
    tmp_path: Path, losses: list[Any], expected: tuple[int, int, int]
) -> None:
    """Calls of teacher, student and backbone in two iterations with a pool of one view.

    The backbone is run for real and for fake: in both iterations together four times.
    """
    pool = world_recipe().pool.model_copy(update={"views": ["global-cond"]})
    run = trainer(world_recipe(losses=losses, pool=pool, run=RunConfig(batch=2)), tmp_path)
    [critic] = run.parts.critics
    teacher = count_calls(run.parts.teacher, "sample")
    student = count_calls(run.state.student.network.module, "forward")
    backbone = count_calls(critic.backbone, "features")
    for i in range(2):
        run.step(i)
    assert (len(teacher), len(student), len(backbone) / 2) == expected


def test_the_critics_warm_up_keeps_no_graph_of_the_student(tmp_path: Path) -> None:
    recipe = world_recipe(warmup={"critic": 2})
    run = trainer(recipe, tmp_path)
    batches = [make_batch(run.state, run.schedule.spec(i), i, 0, []) for i in (0, 2)]
    assert [batch.rollout_BCHW.requires_grad for batch in batches] == [False, True]

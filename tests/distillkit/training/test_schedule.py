"""What an iteration does is a function of its number: phases, learning rate, who trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import UserError
from distillkit.recipe.schema import AdamWConfig, OptimConfig, StudentAdamWConfig, WarmupConfig
from tests.distillkit.world import made_up_loss, trainer, world_recipe

WARMUP = WarmupConfig(student=3, losses=[{"type": "regression"}], critic=2)


def test_phases_follow_each_other_and_say_who_trains(tmp_path: Path) -> None:
    """3 + 2 iterations of warm-up, then stages of 8, 6 and 6."""
    schedule = trainer(world_recipe(warmup=WARMUP), tmp_path).schedule
    specs = [schedule.spec(i) for i in range(len(schedule))]
    assert [spec.phase for spec in specs] == [
        *["student warm-up"] * 3,
        *["critic warm-up"] * 2,
        *["1-step"] * 8,
        *["2-step"] * 6,
        *["4-step"] * 6,
    ]
    assert [i for i, spec in enumerate(specs) if not spec.trains_student] == [3, 4]
    assert [i for i, spec in enumerate(specs) if not spec.trains_critic] == [0, 1, 2]
    assert [i for i, spec in enumerate(specs) if spec.resets_optimizer] == [0, 5]
    assert [i for i, spec in enumerate(specs) if spec.ends_stage] == [12, 18, 24]
    assert schedule.start == 5


@pytest.mark.parametrize(
    ("updates", "stages", "first"),
    [(1, {1: 8}, 5), (4, {1: 8}, 8), (1, {2: 2, 4: 2}, 5), (3, {2: 4}, 7)],
)
def test_first_joint_iteration(
    tmp_path: Path, updates: int, stages: dict[int, int], first: int
) -> None:
    """Both players train: of one step where there is such a one, else of the first length."""
    optim = OptimConfig(student=StudentAdamWConfig(lr=1e-3), critic_updates=updates)
    refinement = {"type": "bottom-up", "stages": stages}
    recipe = world_recipe(warmup=WARMUP, optim=optim, refinement=refinement)
    assert trainer(recipe, tmp_path).schedule.first_joint_iteration() == first


@pytest.mark.parametrize("warmup", [WarmupConfig(), WARMUP])
def test_a_student_that_would_never_train_is_refused(tmp_path: Path, warmup: Any) -> None:
    """Its start, or what the warm-up left, would be published as the result."""
    optim = OptimConfig(student=StudentAdamWConfig(lr=1e-3), critic_updates=21)
    with pytest.raises(UserError) as refused:
        trainer(world_recipe(warmup=warmup, optim=optim), tmp_path)
    assert str(refused.value) == (
        "optim.critic_updates: with 21 updates of the critics for each of the student, and a "
        "refinement of 20 iterations, the student would never train; lower it, or lengthen the "
        "refinement"
    )
    optim = optim.model_copy(update={"critic_updates": 20})
    trainer(world_recipe(warmup=warmup, optim=optim), tmp_path)


def test_the_students_step_size_falls_along_half_a_cosine(tmp_path: Path) -> None:
    optim = OptimConfig(
        student=StudentAdamWConfig(lr=1e-2, final_lr_ratio=0.2),
        warmup=StudentAdamWConfig(lr=1e-3),
        critic=AdamWConfig(lr=1e-2),
    )
    warmup = WarmupConfig(student=2, losses=[{"type": "regression"}])
    run = trainer(world_recipe(optim=optim, warmup=warmup), tmp_path)
    start, end = run.schedule.start, len(run.schedule)
    assert [run.schedule.spec(i).optim.lr for i in (0, 1)] == [1e-3, 1e-3]
    # 20 iterations in three stages: one curve, halfway to 0.2 in the middle.
    for i, share in ((0, 1.0), (5, 0.2 + 0.8 * (1 + 0.5**0.5) / 2), (10, 0.6)):
        assert run.schedule.spec(start + i).optim.lr == pytest.approx(share * 1e-2)
    assert 0.2e-2 < run.schedule.spec(end - 1).optim.lr < 0.21e-2
    run.train()
    [group] = run.state.student_optimizer.param_groups
    assert group["lr"] == run.schedule.spec(end - 1).optim.lr


def test_a_ramp_raises_the_students_weight_and_leaves_the_critics(tmp_path: Path) -> None:
    """Weight 2 over 3 iterations: 2 * 1/4, 2/4, 3/4, then 2. The other loss has its own at once.

    The terms are 1 and 10, so the losses are those weights: and the critics' 2 throughout.
    """

    def one(batch: Any) -> Any:
        return 1 + 0 * batch.fake_BCHW.mean()

    def ones(batch: Any) -> Any:
        return 1 + 0 * sum(each.fake_BK.mean() for each in batch.critic_logits())

    losses = [
        made_up_loss(ones, one).model_copy(update={"weight": 2.0, "ramp": 3}),
        made_up_loss(student=lambda batch: 10 * one(batch)),
    ]
    warmup = WarmupConfig(critic=2)
    run = trainer(world_recipe(losses=losses, warmup=warmup), tmp_path)
    weights = [run.schedule.spec(i).losses for i in range(7)]
    assert [pair[0].student_weight for pair in weights] == [2, 2, 0.5, 1, 1.5, 2, 2]
    assert [pair[0].weight for pair in weights] == [2] * 7
    assert [pair[1].student_weight for pair in weights] == [1] * 7
    metrics = [run.step(i) for i in range(7)]
    assert [each.student for each in metrics] == [0, 0, 10.5, 11, 11.5, 12, 12]
    assert [each.critic for each in metrics] == [2] * 7


def test_a_ramp_counts_joint_iterations_also_those_without_the_student(tmp_path: Path) -> None:
    """With two critic updates a student's: iterations 1, 3, 5 of a ramp over 5 have 2/6, 4/6, 1."""
    optim = OptimConfig(student=StudentAdamWConfig(lr=1e-3), critic_updates=2)
    recipe = world_recipe(losses=[{"type": "hinge", "ramp": 5}], optim=optim)
    schedule = trainer(recipe, tmp_path).schedule
    weights = [schedule.spec(i).losses[0].student_weight for i in (1, 3, 5)]
    assert weights == pytest.approx([2 / 6, 4 / 6, 1])


def test_a_loss_trains_in_roll_outs_of_its_lengths(tmp_path: Path) -> None:
    """The second is for one step: in the critics' warm-up too, and in what is replayed of one."""

    def term(batch: Any) -> Any:
        return 1 + 0 * batch.fake_BCHW.mean()

    losses = [
        made_up_loss(student=term),
        made_up_loss(student=lambda batch: 10 * term(batch)).model_copy(update={"steps": (1,)}),
    ]
    refinement = {"type": "bottom-up", "stages": {1: 2, 2: 20}, "replay": 0.5}
    recipe = world_recipe(losses=losses, warmup=WarmupConfig(), refinement=refinement)
    run = trainer(recipe, tmp_path)
    steps = [run.schedule.spec(i).steps for i in range(len(run.schedule))]
    assert {*steps[:2]} == {1}
    assert {*steps[2:]} == {1, 2}
    assert [run.step(i).student for i in range(8)] == [11 if n == 1 else 1 for n in steps[:8]]

"""The losses on a made-up batch: averages over heads, approximate R1, clipping, regression."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distillkit.errors import UserError
from distillkit.recipe.load import RecipeError, load_recipe
from distillkit.values import HeadLogits
from distillkit_nitrofusion.losses.adversarial import AdversarialConfig
from distillkit_nitrofusion.losses.hinge import HingeConfig
from distillkit_nitrofusion.losses.regression import RegressionConfig
from distillkit_nitrofusion.losses.wasserstein import WassersteinConfig
from distillkit_nitrofusion.plugin import distillkit_register_losses


class MadeUpBatch:
    """Two heads: one with two patches, one with one. Counts what it is asked for."""

    steps = 1

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.real = [torch.tensor([[1.0, 2.0]], requires_grad=True), torch.zeros(1, 1)]
        self.fake = [torch.tensor([[0.0, -3.0]], requires_grad=True), -torch.ones(1, 1)]
        self.real_BCHW = torch.zeros(2, 1, 1, 2)
        self.fake_BCHW = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 0.0]]]], requires_grad=True)

    def head_logits(self, player: str) -> list[HeadLogits]:
        self.asked.append(player)
        return [
            HeadLogits(
                view="v", level=0, head=i, t_B=torch.tensor([10]), real_BK=real, fake_BK=fake
            )
            for i, (real, fake) in enumerate(zip(self.real, self.fake, strict=True))
        ]

    def critic_logits(self) -> list[HeadLogits]:
        return self.head_logits("critic")

    def student_logits(self) -> list[HeadLogits]:
        return self.head_logits("student")

    def perturbed_real_logits(self, sigma: float) -> list[Tensor]:
        self.asked.append(sigma)
        return [torch.tensor([[1.5, 1.0]], requires_grad=True), torch.full((1, 1), 2.0)]

    def perturbed_fake_logits(self, sigma: float) -> list[Tensor]:
        self.asked.append(-sigma)
        return [torch.tensor([[0.0, -1.0]], requires_grad=True), torch.zeros(1, 1)]


def build(config: object) -> object:
    return config.build(teacher=None, student=None)


def test_hinge_averages_over_heads() -> None:
    """First head: reals at or beyond the margin 0; fakes 1 and 0, mean 0.5. Second: 1 + 0 = 1.

    Critic: (0.5 + 1) / 2. Student: minus the fakes' means -1.5 and -1, averaged: 1.25.
    """
    batch = MadeUpBatch()
    loss = build(HingeConfig())
    assert loss.critic(batch).item() == 0.75
    assert loss.student(batch).item() == 1.25
    assert batch.asked == ["critic", "student"]
    assert list(loss.modules()) == []


def test_without_heads_there_is_a_sentence() -> None:
    batch = MadeUpBatch()
    batch.real, batch.fake = [], []
    loss = build(HingeConfig())
    for player in (loss.critic, loss.student):
        with pytest.raises(UserError, match="needs a backbone and a pool"):
            player(batch)


def test_approximate_r1() -> None:
    """Squares: first head 0.25 and 1, mean 0.625; second 4. Mean over heads 2.3125, times 2.

    Added to the hinge's 0.75: 5.375. The student's loss is as without.
    """
    batch = MadeUpBatch()
    loss = build(HingeConfig(r1={"weight": 2, "sigma": 0.25}))
    assert loss.critic(batch).item() == 5.375
    assert batch.asked == ["critic", 0.25]
    assert loss.student(batch).item() == 1.25


def test_approximate_r2_is_that_of_the_fakes() -> None:
    """Squares: first head 0 and 4, mean 2; second 1. Mean over heads 1.5, times 4: 6.

    Added to the hinge's 0.75: 6.75; with R1 of 2 * 2.3125 too, 11.375.
    """
    batch = MadeUpBatch()
    assert build(HingeConfig(r2={"weight": 4, "sigma": 0.5})).critic(batch).item() == 6.75
    assert batch.asked == ["critic", -0.5]
    both = HingeConfig(r1={"weight": 2, "sigma": 0.25}, r2={"weight": 4, "sigma": 0.5})
    assert build(both).critic(batch).item() == 11.375


def test_heads_count_by_the_pictures_that_they_judge() -> None:
    """One picture with logit 0: critic 2. Three with real 1, fake 0: critic 1. Mean of four: 1.25.

    The student's: 0 and -0; with fakes of -1 for the three it is 3/4. R1: (4 + 3 * 0) / 4 * 2 = 2.
    """
    batch = MadeUpBatch()
    batch.real, batch.fake = [torch.zeros(1, 2), torch.ones(3, 2)], [torch.zeros(1, 2)] * 2
    batch.fake[1] = torch.zeros(3, 2)
    assert build(HingeConfig()).critic(batch).item() == 1.25
    batch.fake[1] = -torch.ones(3, 2)
    assert build(HingeConfig()).student(batch).item() == 0.75
    batch.perturbed_real_logits = lambda sigma: [torch.full((1, 2), 2.0), torch.ones(3, 2)]
    batch.fake[1] = torch.zeros(3, 2)
    assert build(HingeConfig(r1={"weight": 2})).critic(batch).item() == 1.25 + 2


def test_approximate_r1_moves_both_sides() -> None:
    """Of 2 (1 - 1.5)^2 / 2 patches / 2 heads, by the first: 2 * 2 * -0.5 / 4 = -0.5.

    The hinge's own gradient there: on the margin of the first patch torch takes 0.
    """
    batch = MadeUpBatch()
    batch.real[0] = torch.tensor([[1.0, 2.0]], requires_grad=True)
    build(HingeConfig(r1={"weight": 2, "sigma": 0.25})).critic(batch).backward()
    assert batch.real[0].grad[0, 0].item() == -0.5


ADVERSARIAL = [
    config for config in distillkit_register_losses() if issubclass(config, AdversarialConfig)
]


@pytest.mark.parametrize("config", ADVERSARIAL)
def test_r1_goes_with_any_objective(config: type[AdversarialConfig]) -> None:
    """The penalty of the made-up batch is 2.3125 times the weight, whatever it is added to."""
    plain = build(config()).critic(MadeUpBatch())
    with_r1 = build(config(r1={"weight": 1, "sigma": 0.1})).critic(MadeUpBatch())
    assert (with_r1 - plain).item() == pytest.approx(2.3125)


def test_wasserstein_clips_the_heads_that_trained() -> None:
    """Weights at 3, -3 and 0.004 become 0.01, -0.01 and 0.004; another head is not touched."""
    trained, other = nn.Linear(3, 1, bias=False), nn.Linear(3, 1, bias=False)
    for head in (trained, other):
        head.weight.data = torch.tensor([[3.0, -3.0, 0.004]])
    build(WassersteinConfig()).after_critic_step([trained])
    assert trained.weight.tolist() == torch.tensor([[0.01, -0.01, 0.004]]).tolist()
    assert other.weight.tolist() == torch.tensor([[3.0, -3.0, 0.004]]).tolist()


@pytest.mark.parametrize("config", [c for c in ADVERSARIAL if c is not WassersteinConfig])
def test_other_losses_do_not_clip(config: type[AdversarialConfig]) -> None:
    head = nn.Linear(1, 1)
    head.weight.data.fill_(3)
    build(config()).after_critic_step([head])
    assert head.weight.item() == 3


def test_regression_is_the_students_alone() -> None:
    """Squares 9, 16, 0, 0: mean 6.25. Gradient 2 * 3 / 4 at the first. No logits are asked for."""
    batch = MadeUpBatch()
    loss = build(RegressionConfig())
    assert loss.critic(batch) is None
    value = loss.student(batch)
    value.backward()
    assert value.item() == 6.25
    assert batch.fake_BCHW.grad[0, 0, 0, 0].item() == 1.5
    assert batch.asked == []


def test_regression_covers_longer_roll_outs_where_asked() -> None:
    batch = MadeUpBatch()
    batch.steps = 2
    assert build(RegressionConfig()).student(batch) is None
    assert build(RegressionConfig(rollouts="all")).student(batch) is not None


def test_regression_needs_the_teachers_noise() -> None:
    recipe = Path(__file__).parents[2] / "recipes" / "nitro_shapes.yaml"
    flags = ["samples.noise=fresh", "losses=[{type: hinge}, {type: regression}]"]
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe), flags)
    assert "losses.1: compares pictures of one x_T" in str(caught.value)


def test_pseudo_huber() -> None:
    """Mean squares 12.5 and 0. With c = 1: (sqrt(13.5) - 1 + 0) / 2; finite gradient at 0."""
    batch = MadeUpBatch()
    value = build(RegressionConfig(norm="pseudo-huber", c=1)).student(batch)
    value.backward()
    assert value.item() == pytest.approx((math.sqrt(13.5) - 1) / 2)
    assert torch.isfinite(batch.fake_BCHW.grad).all()

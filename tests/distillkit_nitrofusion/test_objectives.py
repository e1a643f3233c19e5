"""Each objective against values worked by hand, and where its gradients point."""

from __future__ import annotations

import math

import pytest
import torch

from distillkit_nitrofusion.losses.adversarial import AdversarialConfig
from distillkit_nitrofusion.plugin import distillkit_register_losses

OBJECTIVES = {
    config.name(): config.objective
    for config in distillkit_register_losses()
    if issubclass(config, AdversarialConfig)
}

REAL = [[0.0, 2.0], [-1.0, 0.5]]
FAKE = [[1.0, -2.0], [0.0, -0.5]]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


BY_HAND = {
    # max(0, 1 - real): 1, 0, 2, .5, mean .875; max(0, 1 + fake): 2, 0, 1, .5, mean .875.
    # The mean of the fakes is -1.5 / 4.
    "hinge": (1.75, 0.375),
    # Four terms each, log(1 + e^x) of the numbers above.
    "non-saturating": (
        sum(map(softplus, [0, -2, 1, -0.5])) / 4 + sum(map(softplus, [1, -2, 0, -0.5])) / 4,
        sum(map(softplus, [-1, 2, 0, 0.5])) / 4,
    ),
    # (real - 1)^2: 1, 1, 4, .25, mean 1.5625; fake^2: 1, 4, 0, .25, mean 1.3125; half the sum.
    # (fake - 1)^2: 0, 9, 1, 2.25, mean 3.0625; half of it.
    "least-squares": (1.4375, 1.53125),
    # Mean of the fakes -.375, of the reals 1.5 / 4 = .375.
    "wasserstein": (-0.75, 0.375),
    # fake - real: 1, -4, 1, -1; the student sees the signs turned.
    "relativistic-paired": (
        sum(map(softplus, [1, -4, 1, -1])) / 4,
        sum(map(softplus, [-1, 4, -1, 1])) / 4,
    ),
    # Minus the mean of the reals; mean of fakes minus mean of reals.
    "paper-literal": (-0.375, -0.75),
}
SOUND = sorted(set(OBJECTIVES) - {"paper-literal"})


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(REAL, requires_grad=True), torch.tensor(FAKE, requires_grad=True)


def test_every_objective_is_worked_by_hand() -> None:
    assert set(BY_HAND) == set(OBJECTIVES)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values(name: str) -> None:
    """See BY_HAND for the arithmetic."""
    real, fake = logits()
    critic, student = BY_HAND[name]
    assert OBJECTIVES[name].critic(real_BK=real, fake_BK=fake).item() == pytest.approx(critic)
    assert OBJECTIVES[name].student(real_BK=real, fake_BK=fake).item() == pytest.approx(student)


@pytest.mark.parametrize("name", SOUND)
def test_the_critic_raises_reals_and_lowers_fakes(name: str) -> None:
    """At logits 0 every sound critic wants reals up (gradient below 0) and fakes down.

    Least squares has its fakes' target at 0, so there the fakes start at 0.5.
    """
    real, fake = torch.zeros(2, 3, requires_grad=True), torch.full((2, 3), 0.5, requires_grad=True)
    OBJECTIVES[name].critic(real_BK=real, fake_BK=fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()


@pytest.mark.parametrize("name", SOUND)
def test_the_student_raises_fakes(name: str) -> None:
    real, fake = torch.zeros(2, 3), torch.zeros(2, 3, requires_grad=True)
    OBJECTIVES[name].student(real_BK=real, fake_BK=fake).backward()
    assert (fake.grad < 0).all()


def test_hinge_acts_on_each_patch_before_the_mean() -> None:
    """Reals 3 and -1 have mean 1, where a hinge on the mean is 0; by patch it is (0 + 2) / 2 = 1.

    The first patch is beyond the margin, so only the second has a gradient: -1 / 2.
    Fakes at -1 are on the margin and add nothing.
    """
    real = torch.tensor([[3.0, -1.0]], requires_grad=True)
    loss = OBJECTIVES["hinge"].critic(real_BK=real, fake_BK=torch.tensor([[-1.0, -1.0]]))
    loss.backward()
    assert loss.item() == 1
    assert real.grad.tolist() == [[0, -0.5]]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_mean_does_not_grow_with_patches_or_pictures(name: str) -> None:
    real, fake = logits()
    for player in (OBJECTIVES[name].critic, OBJECTIVES[name].student):
        once = player(real_BK=real, fake_BK=fake)
        more = player(real_BK=real.repeat(3, 5), fake_BK=fake.repeat(3, 5))
        assert more.item() == pytest.approx(once.item())


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((2,), (2,)), ((1, 3), (2, 3))])
def test_unpaired_logits_are_refused(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    real, fake = map(torch.zeros, shapes)
    for player in (OBJECTIVES[name].critic, OBJECTIVES[name].student):
        with pytest.raises(AssertionError):
            player(real_BK=real, fake_BK=fake)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_real_and_fake_cannot_be_passed_by_position(name: str) -> None:
    """So nobody swaps them: with two tensors of one shape only a name tells which is which."""
    real, fake = logits()
    for player in (OBJECTIVES[name].critic, OBJECTIVES[name].student):
        with pytest.raises(TypeError, match="positional arguments"):
            player(real, fake)


def descend(name: str, steps: int) -> tuple[float, float]:
    """Bias and last loss of a critic that is only a bias, after gradient descent of rate 0.1."""
    bias = torch.zeros((), requires_grad=True)
    loss = torch.zeros(())
    for _ in range(steps):
        real, fake = logits()
        loss = OBJECTIVES[name].critic(real_BK=real.detach() + bias, fake_BK=fake.detach() + bias)
        (gradient,) = torch.autograd.grad(loss, bias)
        bias.data -= 0.1 * gradient
    return bias.item(), loss.item()


def test_paper_literal_diverges_by_its_bias_alone() -> None:
    """d(-E[real + b])/db = -1 always: after n steps of rate 0.1 the bias is n / 10.

    The last loss was taken at b = (n - 1) / 10 and is -0.375 - b. No number of steps ends it.
    Every sound objective stays near 0: there the reals' pull is met by the fakes'.
    """
    assert descend("paper-literal", 1000) == pytest.approx((100, -0.375 - 99.9), rel=1e-4)
    assert descend("paper-literal", 4000)[0] == pytest.approx(400, rel=1e-3)
    for name in SOUND:
        assert abs(descend(name, 1000)[0]) < 1


def test_paper_literal_critic_never_sees_a_fake_and_its_student_flees() -> None:
    """The critic has no gradient in the fakes; the student lowers logits that mean "real"."""
    real, fake = logits()
    objective = OBJECTIVES["paper-literal"]
    assert torch.autograd.grad(
        objective.critic(real_BK=real, fake_BK=fake), fake, allow_unused=True
    ) == (None,)
    (gradient,) = torch.autograd.grad(objective.student(real_BK=real, fake_BK=fake), fake)
    assert (gradient > 0).all()

"""Adversarial objectives on one head's logits: what is meant in section 3.1 of the paper.

Legend: B batch, K patches. Logits are higher for "the teacher's" (real). All functions take
paired `real_BK, fake_BK` and return a scalar that the player minimises. Each patch logit is
judged by itself; losses are then averaged over patches and pictures (and by `adversarial` over
heads), where the paper sums over heads: so the learning rate does not depend on the panel's size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu, softplus

Term = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """What the two players minimise."""

    critic: Term
    student: Term


def assert_paired(real_BK: Tensor, fake_BK: Tensor) -> None:
    assert real_BK.ndim == 2, f"logits must be (B, K), not {tuple(real_BK.shape)}"
    assert real_BK.shape == fake_BK.shape, f"{tuple(real_BK.shape)} and {tuple(fake_BK.shape)}"


def hinge_critic(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[max(0, 1 - D(x_0))] + E[max(0, 1 + D(x_0-hat))]  (ADD, Sauer et al. 2023, equation 3)."""
    assert_paired(real_BK, fake_BK)
    return relu(1 - real_BK).mean() + relu(1 + fake_BK).mean()


def minus_fake(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[D(x_0-hat)]: the student of hinge (ADD, equation 2) and of Wasserstein."""
    assert_paired(real_BK, fake_BK)
    return -fake_BK.mean()


def non_saturating_critic(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[log s(D(x_0))] - E[log(1 - s(D(x_0-hat)))], s the sigmoid  (Goodfellow et al. 2014)."""
    assert_paired(real_BK, fake_BK)
    return softplus(-real_BK).mean() + softplus(fake_BK).mean()


def non_saturating_student(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[log s(D(x_0-hat))], s the sigmoid  (Goodfellow et al. 2014, section 3)."""
    assert_paired(real_BK, fake_BK)
    return softplus(-fake_BK).mean()


def least_squares_critic(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """(E[(D(x_0) - 1)^2] + E[D(x_0-hat)^2]) / 2  (LSGAN, Mao et al. 2017, equation 9)."""
    assert_paired(real_BK, fake_BK)
    return ((real_BK - 1).square().mean() + fake_BK.square().mean()) / 2


def least_squares_student(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[(D(x_0-hat) - 1)^2] / 2  (LSGAN, Mao et al. 2017, equation 9)."""
    assert_paired(real_BK, fake_BK)
    return (fake_BK - 1).square().mean() / 2


def wasserstein_critic(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[D(x_0-hat)] - E[D(x_0)]  (Arjovsky et al. 2017). Unbounded: needs weight clipping."""
    assert_paired(real_BK, fake_BK)
    return fake_BK.mean() - real_BK.mean()


def relativistic_critic(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[softplus(D(x_0-hat) - D(x_0))], pair by pair  (R3GAN, Huang et al. 2024, equation 2)."""
    assert_paired(real_BK, fake_BK)
    return softplus(fake_BK - real_BK).mean()


def relativistic_student(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[softplus(D(x_0) - D(x_0-hat))], pair by pair  (R3GAN, Huang et al. 2024, equation 2)."""
    assert_paired(real_BK, fake_BK)
    return softplus(real_BK - fake_BK).mean()


def literal_critic(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """-E[D(x_0)], as printed in sections 3.1 and 3.2. The critic never sees a fake: it diverges."""
    assert_paired(real_BK, fake_BK)
    return -real_BK.mean()


def literal_student(real_BK: Tensor, fake_BK: Tensor) -> Tensor:
    """E[D(x_0-hat) - D(x_0)], as printed (3.1, 3.2): drives the student away."""
    assert_paired(real_BK, fake_BK)
    return (fake_BK - real_BK).mean()


OBJECTIVES = {
    "hinge": Objective(hinge_critic, minus_fake),
    "non-saturating": Objective(non_saturating_critic, non_saturating_student),
    "least-squares": Objective(least_squares_critic, least_squares_student),
    "wasserstein": Objective(wasserstein_critic, minus_fake),
    "relativistic-paired": Objective(relativistic_critic, relativistic_student),
    "paper-literal": Objective(literal_critic, literal_student),
}
"""By the names that recipes use."""

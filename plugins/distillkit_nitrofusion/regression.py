"""Regression on the teacher's samples: warm-up for a student without one-step weights.

The paper starts from one-step weights (section 3.1); DMD2 (Yin et al. 2024) warms up like this.
Beside an adversarial loss it is an anchor, as the distillation term of ADD (Sauer et al. 2023).
Legend: B batch, C channels, H, W latent cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from distillkit.contracts import TrainBatch


def mse(fake_BCHW: Tensor, real_BCHW: Tensor) -> Tensor:
    """E[(x_0-hat - x_0)^2]."""
    assert fake_BCHW.shape == real_BCHW.shape
    return (fake_BCHW - real_BCHW).square().mean()


def pseudo_huber(fake_BCHW: Tensor, real_BCHW: Tensor, c: float) -> Tensor:
    """E_B[sqrt(m + c^2) - c], m a picture's mean squared error  (iCT, Song & Dhariwal 2024).

    iCT takes the squared norm in place of m, and c in proportion to the root of the dimension;
    both divided by that root, so that the loss does not grow with the resolution.
    """
    assert fake_BCHW.shape == real_BCHW.shape
    m_B = (fake_BCHW - real_BCHW).square().flatten(1).mean(1)
    return ((m_B + c**2).sqrt() - c).mean()


class RegressionLoss:
    """The student's distance to the teacher's sample from the same x_T; no critic takes part.

    Between the steps of a longer roll-out there is fresh noise, to which the teacher's sample is
    one answer of many; `longest` leaves longer roll-outs out.
    """

    def __init__(
        self, distance: Callable[[Tensor, Tensor], Tensor], longest: int | None = 1
    ) -> None:
        self.distance = distance
        self.longest = longest

    def critic(self, batch: TrainBatch) -> None:
        """Says nothing of the critics."""

    def student(self, batch: TrainBatch) -> Tensor | None:
        """Scalar for the student; nothing of roll-outs that are too long."""
        if self.longest is not None and batch.steps > self.longest:
            return None
        return self.distance(batch.fake_BCHW, batch.real_BCHW)

    def after_critic_step(self, heads: Sequence[nn.Module]) -> None:
        """Nothing to constrain."""

    def modules(self) -> Sequence[nn.Module]:
        """None."""
        return []

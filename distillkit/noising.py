"""The noise schedule: x_0 -> x_t, and a network's output -> x_0 (paper, section 3).

Legend: B batch, C channels, H, W latent cells, T noise levels (usually 1000).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True)
class NoiseSchedule:
    """A variance-preserving schedule: `alpha_bar_T`, the signal's variance at every noise level,
    falling from 1 to 0."""

    alpha_bar_T: Tensor

    def __post_init__(self) -> None:
        if self.alpha_bar_T.ndim != 1 or not bool((self.alpha_bar_T.diff() < 0).all()):
            raise ValueError("alpha_bar must be one falling row of numbers, one a noise level")

    def __len__(self) -> int:
        return len(self.alpha_bar_T)

    def alpha_bar(self, t_B: Tensor) -> Tensor:
        """alpha_bar at t, shaped (B, 1, 1, 1). Fractional t is interpolated in log-SNR."""
        table_T = self.alpha_bar_T.to(t_B.device)
        if not t_B.is_floating_point():
            return table_T[t_B].view(-1, 1, 1, 1)
        # A schedule of zero terminal SNR ends at 0, whose logit is infinite.
        logit_T = torch.logit(table_T.double(), eps=1e-12)
        low_B = t_B.floor().long().clamp(0, len(self) - 2)
        logit_B = torch.lerp(logit_T[low_B], logit_T[low_B + 1], t_B.double() - low_B)
        return torch.sigmoid(logit_B).to(table_T.dtype).view(-1, 1, 1, 1)

    def defines_x_0(self, t: int, prediction: Prediction) -> bool:
        """Whether x_0 can be told from the output at timestep t: not from epsilon in pure noise."""
        return prediction != "epsilon" or float(self.alpha_bar_T[t]) > 0

    def add(self, x_0_BCHW: Tensor, eps_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps  (section 3, preliminaries)."""
        a_B111 = self.alpha_bar(t_B)
        return a_B111.sqrt() * x_0_BCHW + (1 - a_B111).sqrt() * eps_BCHW

    def to_x_0(
        self, output_BCHW: Tensor, x_t_BCHW: Tensor, t_B: Tensor, prediction: Prediction
    ) -> Tensor:
        """x_0 from the network's output for x_t.

        For "epsilon": x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar). An error of the
        network grows by sqrt((1 - alpha_bar) / alpha_bar): 14.6 at t = 999, 1.6 at t = 499.
        """
        if prediction == "sample":
            return output_BCHW
        a_B111 = self.alpha_bar(t_B)
        if prediction == "v_prediction":
            return a_B111.sqrt() * x_t_BCHW - (1 - a_B111).sqrt() * output_BCHW
        return (x_t_BCHW - (1 - a_B111).sqrt() * output_BCHW) / a_B111.sqrt()

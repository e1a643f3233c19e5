"""The noise schedule: x_0 -> x_t, and a network's output -> x_0 (paper, section 3).

Legend: B batch, C channels, H, W latent cells, T noise levels (usually 1000).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
"""What a network predicts: eps; alpha eps - sigma x_0; x_0; eps - x_0 (flow matching)."""

LEAST_SIGNAL = 1e-4
"""Smallest alpha that is divided by: where there is no signal at all, x_0 stays finite."""


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = alpha_t x_0 + sigma_t eps: how much signal and noise there are at every level.

    Of `alpha_bar_T` alone it is variance preserving: alpha = sqrt(alpha_bar), sigma = sqrt(1 -
    alpha_bar). `NoiseSchedule.flow_matching` makes the other kind, alpha = 1 - sigma.
    """

    alpha_bar_T: Tensor
    """The signal's share of the variance, alpha^2 / (alpha^2 + sigma^2), falling from 1 to 0."""
    sigma_T: Tensor | None = None
    """Flow matching's noise levels, rising to 1; None is variance preserving."""

    _there: dict[tuple[str, Any], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """The tables on the devices where they were asked for."""

    def __post_init__(self) -> None:
        if self.alpha_bar_T.ndim != 1 or not bool((self.alpha_bar_T.diff() < 0).all()):
            raise ValueError("alpha_bar must be one falling row of numbers, one a noise level")

    @staticmethod
    def flow_matching(shift: float = 1.0, levels: int = 1000) -> NoiseSchedule:
        """alpha = 1 - sigma, sigma = shift s / (1 + (shift - 1) s), s = (t + 1) / levels.

        `shift` moves the levels towards the noise, as a model family was trained (Esser et al.
        2024, equation 23). The last level is pure noise.
        """
        s_T = torch.arange(1, levels + 1, dtype=torch.float64) / levels
        sigma_T = shift * s_T / (1 + (shift - 1) * s_T)
        signal_T, noise_T = (1 - sigma_T).square(), sigma_T.square()
        return NoiseSchedule((signal_T / (signal_T + noise_T)).float(), sigma_T.float())

    def __len__(self) -> int:
        return len(self.alpha_bar_T)

    def alpha_bar(self, t_B: Tensor) -> Tensor:
        """alpha_bar at t, shaped (B, 1, 1, 1). Fractional t is interpolated in log-SNR."""
        if self.sigma_T is not None:
            alpha_B111, sigma_B111 = self.alpha_sigma(t_B)
            return alpha_B111.square() / (alpha_B111.square() + sigma_B111.square())
        table_T = self._on("alpha_bar_T", t_B.device)
        if not t_B.is_floating_point():
            return table_T[t_B].view(-1, 1, 1, 1)
        # A schedule of zero terminal SNR ends at 0, whose logit is infinite.
        logit_T = torch.logit(table_T.double(), eps=1e-12)
        return torch.sigmoid(self._between(logit_T, t_B)).to(table_T.dtype).view(-1, 1, 1, 1)

    def alpha_sigma(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at t, each (B, 1, 1, 1). Of flow matching, fractional t is interpolated
        in sigma."""
        if self.sigma_T is None:
            a_B111 = self.alpha_bar(t_B)
            return a_B111.sqrt(), (1 - a_B111).sqrt()
        table_T = self._on("sigma_T", t_B.device)
        if t_B.is_floating_point():
            sigma_B = self._between(table_T.double(), t_B).to(table_T.dtype)
        else:
            sigma_B = table_T[t_B]
        sigma_B111 = sigma_B.view(-1, 1, 1, 1)
        return 1 - sigma_B111, sigma_B111

    def snr(self, t_B: Tensor) -> Tensor:
        """The signal-to-noise ratio alpha^2 / sigma^2 at t, shaped (B, 1, 1, 1)."""
        if self.sigma_T is None:
            a_B111 = self.alpha_bar(t_B)
            return a_B111 / (1 - a_B111)
        alpha_B111, sigma_B111 = self.alpha_sigma(t_B)
        return (alpha_B111 / sigma_B111).square()

    def level_of(self, sigma_B: Tensor) -> Tensor:
        """Of flow matching: the fractional t whose noise level is sigma, float64."""
        if self.sigma_T is None:
            raise ValueError("a variance-preserving schedule is told by timesteps, not by sigma")
        table_T, wanted_B = self.sigma_T.double().to(sigma_B.device), sigma_B.double()
        low_B = (torch.searchsorted(table_T, wanted_B) - 1).clamp(0, len(self) - 2)
        below_B = table_T[low_B]
        return low_B + (wanted_B - below_B) / (table_T[low_B + 1] - below_B)

    def defines_x_0(self, t: float, prediction: Prediction) -> bool:
        """Whether x_0 can be told from the output at timestep t: not from epsilon in pure noise."""
        if prediction != "epsilon":
            return True
        alpha_B111, _ = self.alpha_sigma(torch.tensor([t]))
        return float(alpha_B111) > LEAST_SIGNAL

    def add(self, x_0_BCHW: Tensor, eps_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """x_t = alpha x_0 + sigma eps  (section 3, preliminaries)."""
        alpha_B111, sigma_B111 = self.alpha_sigma(t_B)
        return alpha_B111 * x_0_BCHW + sigma_B111 * eps_BCHW

    def to_x_0(
        self, output_BCHW: Tensor, x_t_BCHW: Tensor, t_B: Tensor, prediction: Prediction
    ) -> Tensor:
        """x_0 from the network's output for x_t.

        For "epsilon": x_0 = (x_t - sigma eps) / alpha. An error of the network grows by sigma /
        alpha: in most latent diffusion models 14.6 at t = 999, 1.6 at t = 499. For "flow" it
        never grows: x_0 = x_t - sigma v.
        """
        if prediction == "sample":
            return output_BCHW
        alpha_B111, sigma_B111 = self.alpha_sigma(t_B)
        if prediction == "flow":
            # x_t = (alpha + sigma) x_0 + sigma v for v = eps - x_0; flow matching's sum is 1.
            x_0_BCHW = x_t_BCHW - sigma_B111 * output_BCHW
            return x_0_BCHW if self.sigma_T is not None else x_0_BCHW / (alpha_B111 + sigma_B111)
        if prediction == "v_prediction":
            x_0_BCHW = alpha_B111 * x_t_BCHW - sigma_B111 * output_BCHW
            if self.sigma_T is None:  # alpha^2 + sigma^2 = 1
                return x_0_BCHW
            return x_0_BCHW / (alpha_B111.square() + sigma_B111.square())
        return (x_t_BCHW - sigma_B111 * output_BCHW) / alpha_B111.clamp(min=LEAST_SIGNAL)

    def target(
        self, x_0_BCHW: Tensor, eps_BCHW: Tensor, t_B: Tensor, prediction: Prediction
    ) -> Tensor:
        """What a network that predicts `prediction` is trained to say of x_t = alpha x_0 + sigma
        eps."""
        if prediction == "epsilon":
            return eps_BCHW
        if prediction == "sample":
            return x_0_BCHW
        if prediction == "flow":
            return eps_BCHW - x_0_BCHW
        alpha_B111, sigma_B111 = self.alpha_sigma(t_B)
        return alpha_B111 * eps_BCHW - sigma_B111 * x_0_BCHW

    def to_eps(self, x_0_BCHW: Tensor, x_t_BCHW: Tensor, t_B: Tensor) -> Tensor:
        """The noise that x_t has beside x_0: eps = (x_t - alpha x_0) / sigma."""
        alpha_B111, sigma_B111 = self.alpha_sigma(t_B)
        return (x_t_BCHW - alpha_B111 * x_0_BCHW) / sigma_B111

    def _on(self, table: str, device: Any) -> Tensor:
        if (table, device) not in self._there:
            self._there[table, device] = getattr(self, table).to(device)
        return self._there[table, device]

    def _between(self, table_T: Tensor, t_B: Tensor) -> Tensor:
        """The table at fractional t, interpolated; float64."""
        low_B = t_B.floor().long().clamp(0, len(self) - 2)
        return torch.lerp(table_T[low_B], table_T[low_B + 1], t_B.double() - low_B)

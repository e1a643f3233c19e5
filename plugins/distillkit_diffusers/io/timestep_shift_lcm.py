"""LCM's multistep sampling for a student that is run at a shifted timestep.

A standalone file: it is copied beside published weights and needs diffusers only.
"""

from __future__ import annotations

from typing import Any

from diffusers import LCMScheduler
from diffusers.configuration_utils import register_to_config


class TimestepShiftLCMScheduler(LCMScheduler):
    """LCMScheduler whose network is run at t' = floor(t * shifted_timestep / 1000).

    The network is conditioned, and its output converted to x_0, at t'; between two steps x_0 is
    noised to the next t of the unshifted grid. With four original steps that grid is
    999 | 999, 499 | 999, 749, 499 | 999, 749, 499, 249 for 1 | 2 | 3 | 4 steps.

    Every argument is named, since `from_config` passes named arguments only.
    """

    timesteps: Any
    """Shifted timesteps, at which the network is run."""
    noise_timesteps: Any
    """Unshifted timesteps, which are the noise levels."""

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.00085,
        beta_end: float = 0.012,
        beta_schedule: str = "scaled_linear",
        trained_betas: list[float] | None = None,
        original_inference_steps: int = 4,
        clip_sample: bool = False,
        clip_sample_range: float = 1.0,
        set_alpha_to_one: bool = True,
        steps_offset: int = 0,
        prediction_type: str = "epsilon",
        thresholding: bool = False,
        dynamic_thresholding_ratio: float = 0.995,
        sample_max_value: float = 1.0,
        timestep_spacing: str = "leading",
        timestep_scaling: float = 10.0,
        rescale_betas_zero_snr: bool = False,
        shifted_timestep: int = 1000,
    ) -> None:
        """`shifted_timestep`: where the network is run for t = 1000; all others are LCM's."""
        super().__init__(
            num_train_timesteps=num_train_timesteps,
            beta_start=beta_start,
            beta_end=beta_end,
            beta_schedule=beta_schedule,
            trained_betas=trained_betas,
            original_inference_steps=original_inference_steps,
            clip_sample=clip_sample,
            clip_sample_range=clip_sample_range,
            set_alpha_to_one=set_alpha_to_one,
            steps_offset=steps_offset,
            prediction_type=prediction_type,
            thresholding=thresholding,
            dynamic_thresholding_ratio=dynamic_thresholding_ratio,
            sample_max_value=sample_max_value,
            timestep_spacing=timestep_spacing,
            timestep_scaling=timestep_scaling,
            rescale_betas_zero_snr=rescale_betas_zero_snr,
        )
        self.noise_timesteps = self.timesteps

    # Pipelines inspect the names of both methods' arguments before they pass any.

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        original_inference_steps: int | None = None,
        timesteps: list[int] | None = None,
        strength: float = 1.0,
    ) -> None:
        """As LCMScheduler's, which sets the unshifted timesteps; then the shifted ones."""
        super().set_timesteps(
            num_inference_steps, device, original_inference_steps, timesteps, strength
        )
        self.noise_timesteps = self.timesteps
        levels = self.config.num_train_timesteps
        self.timesteps = self.noise_timesteps * self.config.shifted_timestep // levels

    def step(
        self,
        model_output: Any,
        timestep: Any,
        sample: Any,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """As LCMScheduler's: `timestep` is the network's t', the next noise level is unshifted."""
        if self.step_index is None:
            self._init_step_index(timestep)
        model_timesteps = self.timesteps
        self.timesteps = self.noise_timesteps  # LCM reads the next noise level here
        try:
            return super().step(model_output, timestep, sample, generator, return_dict)
        finally:
            self.timesteps = model_timesteps

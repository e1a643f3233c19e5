"""The shifted scheduler's grids and config (the numbers are the published models')."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, LCMScheduler

from distillkit.training.models.student import noise_grid, shifted
from distillkit_diffusers.io.timestep_shift_lcm import TimestepShiftLCMScheduler

NOISE_GRIDS = {1: [999], 2: [999, 499], 3: [999, 749, 499], 4: [999, 749, 499, 249]}


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_noise_grid_is_unshifted(steps: int) -> None:
    scheduler = TimestepShiftLCMScheduler(shifted_timestep=250)
    scheduler.set_timesteps(steps)
    assert scheduler.noise_timesteps.tolist() == NOISE_GRIDS[steps] == noise_grid(steps)


@pytest.mark.parametrize(
    ("shift", "grid"),
    [
        (250, [249, 187, 124, 62]),
        (500, [499, 374, 249, 124]),
        (1000, [999, 749, 499, 249]),
    ],
)
def test_model_grid(shift: int, grid: list[int]) -> None:
    scheduler = TimestepShiftLCMScheduler(shifted_timestep=shift)
    scheduler.set_timesteps(4)
    assert scheduler.timesteps.tolist() == grid == [shifted(t, shift) for t in noise_grid(4)]


def test_a_step_converts_at_the_shifted_and_noises_to_the_unshifted_level() -> None:
    """x_0 = (x - sqrt(1 - abar_249) eps) / sqrt(abar_249), then noise of level 749."""
    scheduler = TimestepShiftLCMScheduler(shifted_timestep=250, beta_schedule="scaled_linear")
    scheduler.set_timesteps(4)
    x, eps = torch.ones(1, 1, 2, 2), torch.full((1, 1, 2, 2), 0.5)
    drawn = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    out = scheduler.step(eps, scheduler.timesteps[0], x, torch.Generator().manual_seed(3))
    abar = scheduler.alphas_cumprod
    x_0 = (1 - (1 - abar[249]).sqrt() * 0.5) / abar[249].sqrt()
    expected = abar[749].sqrt() * x_0 + (1 - abar[749]).sqrt() * drawn
    torch.testing.assert_close(out.prev_sample, expected, rtol=1e-5, atol=1e-5)
    assert scheduler.timesteps.tolist() == [249, 187, 124, 62]


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, LCMScheduler])
def test_the_base_schedulers_keys_survive(kind: Any, tmp_path: Path) -> None:
    base = kind(
        num_train_timesteps=800,
        beta_start=0.001,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="v_prediction",
        steps_offset=1,
        rescale_betas_zero_snr=True,
    )
    shifted_one = TimestepShiftLCMScheduler.from_config(base.config, shifted_timestep=500)
    shifted_one.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "scheduler_config.json").read_text())
    again = TimestepShiftLCMScheduler.from_pretrained(tmp_path)
    for name in ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule"):
        assert saved[name] == again.config[name] == base.config[name]
    for name in ("prediction_type", "steps_offset", "rescale_betas_zero_snr"):
        assert saved[name] == again.config[name] == base.config[name]
    assert saved["shifted_timestep"] == again.config.shifted_timestep == 500
    if kind is not LCMScheduler:
        assert saved["original_inference_steps"] == again.config.original_inference_steps == 4
    lcm = LCMScheduler.from_config(base.config)
    assert torch.equal(lcm.alphas_cumprod, again.alphas_cumprod)


def test_every_key_of_lcm_is_an_argument() -> None:
    from inspect import signature

    ours, theirs = signature(TimestepShiftLCMScheduler.__init__), signature(LCMScheduler.__init__)
    assert set(ours.parameters) - set(theirs.parameters) == {"shifted_timestep"}
    assert set(theirs.parameters) <= set(ours.parameters)

"""Teachers against the stock pipelines: the same picture for the same noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit_diffusers.flow.configs import FlowTeacherConfig
from tests.distillkit_diffusers.flow.tiny import PROMPTS, Tiny, draw, stock_pipeline

CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("z-image", {"steps": 3}, {"num_inference_steps": 3, "guidance_scale": 0}),
    (
        "z-image",
        {"sigmas": (1.0, 0.6, 0.25), "guidance": 0.5},
        {"sigmas": [1.0, 0.6, 0.25], "guidance_scale": 0.5},
    ),
    # The second of three steps is at sigma 0.86, the third at 0.6: guidance ends before that.
    (
        "z-image",
        {"steps": 3, "guidance": 4.0, "cfg_normalization": 0.9, "cfg_truncation": 0.3},
        {
            "num_inference_steps": 3,
            "guidance_scale": 4.0,
            "cfg_normalization": 0.9,
            "cfg_truncation": 0.3,
        },
    ),
    ("flux2", {"steps": 3}, {"num_inference_steps": 3, "guidance_scale": 0}),
    (
        "flux2",
        {"sigmas": (1.0, 0.6), "guidance": 4.0},
        {"num_inference_steps": 2, "sigmas": [1.0, 0.6], "guidance_scale": 4.0},
    ),
]


@pytest.mark.parametrize("case", range(3))
def test_samples_are_the_stock_pipelines(
    kind: str, tiny: Tiny, folder: Path, teacher_config: FlowTeacherConfig, case: int
) -> None:
    """Guidance, and each family's own ways with it, included; pictures too."""
    cases = [(fields, call) for of, fields, call in CASES if of == kind]
    if case >= len(cases):
        pytest.skip(f"{kind} has {len(cases)} cases")
    fields, call = cases[case]
    pipe, x_T = stock_pipeline(folder), tiny.noise(2)
    expected, pictures = (draw(pipe, x_T, output, **call) for output in ("latent", "pt"))
    ours: Any = tiny.teacher.model_validate({**teacher_config.model_dump(), **fields}).build()
    x_0 = ours.sample(x_T, ours.encode(PROMPTS), [])
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.decode(x_0), pictures, rtol=1e-4, atol=1e-4)


def test_guidance_changes_the_picture(
    tiny: Tiny, teacher: Any, teacher_config: FlowTeacherConfig
) -> None:
    """And a pipeline that was distilled with its guidance has none of it added."""
    x_T, cond = tiny.noise(2), teacher.encode(PROMPTS)
    guided: Any = teacher_config.model_copy(update={"guidance": 4.0}).build()
    plain = teacher.sample(x_T, cond, [])
    assert float((guided.sample(x_T, cond, []) - plain).abs().max()) > 1e-3
    if "is_distilled" in guided.pipe.config:
        guided.pipe.register_to_config(is_distilled=True)
        torch.testing.assert_close(guided.sample(x_T, cond, []), plain)


def test_pictures_become_latents_and_come_back(kind: str, tiny: Tiny, teacher: Any) -> None:
    """The mode of the VAE's posterior, as the stock pipelines encode pictures."""
    images, pipe = torch.rand(1, 3, 32, 32), teacher.pipe
    with torch.no_grad():
        if kind == "flux2":
            expected = pipe._encode_vae_image(2 * images - 1, None)
        else:
            mode = pipe.vae.encode(2 * images - 1).latent_dist.mode()
            expected = (mode - 0.1159) * 0.3611
    torch.testing.assert_close(teacher.encode_images(images), expected)
    assert teacher.latent_shape == tiny.latent_shape
    assert teacher.image_size == (32, 32)


def test_the_schedules_shift(kind: str, teacher: Any) -> None:
    """Z-Image's own is 3; FLUX.2's is exp(mu) of four steps at 16 tokens.

    mu(16 tokens): 1.8997 for 10 steps, 0.4594 for 200, and on a line between: 1.9452 for 4.
    """
    shift = 3.0 if kind == "z-image" else math.exp(1.9452)
    assert teacher.shift == pytest.approx(shift, rel=1e-4)
    half = float(teacher.schedule.alpha_sigma(torch.tensor([499]))[1])
    assert half == pytest.approx(shift / (1 + shift), rel=1e-4)

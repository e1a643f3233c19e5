"""The teacher against the stock pipeline: the same picture for the same noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from tests.distillkit_diffusers.sd3.tiny import T5_TOKENS, noise, stock_pipeline
from tests.distillkit_diffusers.tiny import PROMPTS


@pytest.mark.parametrize("guidance", [0.0, 4.5])
@pytest.mark.parametrize("sampling", [{"steps": 3}, {"sigmas": (1.0, 0.6, 0.25)}])
@pytest.mark.parametrize("t5", [True, False])
def test_samples_are_the_stock_pipelines(
    tiny_sd3: Path, guidance: float, sampling: dict[str, Any], t5: bool
) -> None:
    pipe = stock_pipeline(tiny_sd3)
    if not t5:
        pipe.text_encoder_3 = pipe.tokenizer_3 = None
    call: dict[str, Any] = {"guidance_scale": guidance, "max_sequence_length": T5_TOKENS}
    own = sampling.get("sigmas")
    call |= {"sigmas": list(own)} if own else {"num_inference_steps": sampling["steps"]}
    x_T = noise(2)
    expected = pipe(PROMPTS, latents=x_T.clone(), output_type="latent", **call).images
    pictures = pipe(PROMPTS, latents=x_T.clone(), output_type="pt", **call).images

    ours: Any = SD3TeacherConfig(
        model=str(tiny_sd3), dtype="float32", guidance=guidance, max_tokens=T5_TOKENS, t5=t5,
        **sampling,
    ).build()  # fmt: skip
    x_0 = ours.sample(x_T, ours.encode(PROMPTS), [])
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.decode(x_0), pictures, rtol=1e-4, atol=1e-4)


def test_pictures_become_the_latents_that_the_vae_gives(teacher: Any) -> None:
    """(mode - shift) * scale, and back."""
    images = torch.rand(1, 3, 32, 32)
    mode = teacher.pipe.vae.encode(2 * images - 1).latent_dist.mode()
    torch.testing.assert_close(teacher.encode_images(images), (mode - 0.0609) * 1.5305)


def test_what_the_trainer_needs_to_know(teacher: Any) -> None:
    """Shift 3: sigma = 3 s / (1 + 2 s); half way up the table it is 0.75."""
    assert teacher.latent_shape == (16, 8, 8)
    assert teacher.image_size == (32, 32)
    assert float(teacher.schedule.alpha_sigma(torch.tensor([499]))[1]) == pytest.approx(0.75)
    assert teacher.denoiser.prediction == "flow"

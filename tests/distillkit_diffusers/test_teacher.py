"""The teacher: its values against a stock StableDiffusionXLPipeline, its grids, its rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit_diffusers.configs import SDXLTeacherConfig
from distillkit_diffusers.solvers import make_solver
from distillkit_diffusers.teacher import load_teacher
from distillkit_diffusers.teacher_options import TeacherOptions
from tests.distillkit_diffusers.tiny import PROMPTS, noise, stock_pipeline


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_what_the_trainer_needs_to_know(teacher: Any) -> None:
    assert teacher.latent_shape == (4, 8, 8)
    assert len(teacher.schedule) == 1000
    # sqrt((1 - abar) / abar) at t = 999 of SDXL's schedule
    abar = teacher.schedule.alpha_bar_T[999]
    assert float(((1 - abar) / abar).sqrt()) == pytest.approx(14.6, abs=0.05)
    assert teacher.denoiser.prediction == "epsilon"
    assert all(not m.training for m in teacher.modules())
    assert not any(p.requires_grad for m in teacher.modules() for p in m.parameters())


def test_conditions_have_the_shapes_of_both_encoders(teacher: Any) -> None:
    cond = teacher.encode(PROMPTS)
    assert cond.tensors["prompt"].shape == (2, 16, 40)
    assert cond.tensors["pooled"].shape == (2, 24)
    null = teacher.null(3)
    assert {k: v.shape for k, v in null.tensors.items()} == {
        "prompt": (3, 16, 40),
        "pooled": (3, 24),
    }
    assert all(not v.any() for v in null.tensors.values())
    alone = teacher.encode(PROMPTS[1:])
    torch.testing.assert_close(alone.tensors["prompt"], cond[1:2].tensors["prompt"])


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize(
    ("solver", "spacing"),
    [("ddim", "trailing"), ("dpm++", "trailing"), ("euler", "trailing"), ("euler", "leading")],
)
def test_samples_are_the_stock_pipelines(
    tiny_sdxl: Path, guidance: float, solver: Any, spacing: Any
) -> None:
    import diffusers

    pipe = stock_pipeline(tiny_sdxl)
    kinds = {
        "ddim": diffusers.DDIMScheduler,
        "dpm++": diffusers.DPMSolverMultistepScheduler,
        "euler": diffusers.EulerDiscreteScheduler,
    }
    kind = kinds[solver]
    extra = {"clip_sample": False} if solver == "ddim" else {}
    pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing=spacing, **extra)
    x_T = noise(2)
    call = {"num_inference_steps": 4, "guidance_scale": guidance}
    expected = pipe(PROMPTS, latents=x_T.clone(), output_type="latent", **call).images
    pictures = pipe(PROMPTS, latents=x_T.clone(), output_type="pt", **call).images

    ours = load_teacher(
        tiny_sdxl, TeacherOptions(solver=solver, spacing=spacing, steps=4, guidance=guidance)
    )
    cond = ours.encode(PROMPTS)
    x_0 = ours.sample(x_T, cond, generators(1, 2))
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.decode(x_0), pictures, rtol=1e-4, atol=1e-4)
    assert not x_0.requires_grad
    assert not x_0.is_inference()


def test_a_model_may_have_the_empty_text_as_its_null(tiny_sdxl: Path, tmp_path: Path) -> None:
    """As its pipeline's config says; the encoders run for it once, and the stock pipeline samples
    the same."""
    pipe = stock_pipeline(tiny_sdxl)
    pipe.register_to_config(force_zeros_for_empty_prompt=False)
    pipe.save_pretrained(tmp_path / "model")
    import diffusers

    stock = stock_pipeline(tmp_path / "model")
    ours = load_teacher(tmp_path / "model", TeacherOptions(steps=4, guidance=5.0))
    stock.scheduler = diffusers.DDIMScheduler.from_config(
        stock.scheduler.config, timestep_spacing="trailing", clip_sample=False
    )
    x_T, call = noise(2), {"num_inference_steps": 4, "guidance_scale": 5.0}
    expected = stock(PROMPTS, latents=x_T.clone(), output_type="latent", **call).images
    runs: list[int] = []
    ours.pipe.text_encoder.register_forward_hook(lambda *_: runs.append(1))
    null, empty = ours.null(3), ours.encode([""])
    assert all(torch.equal(v[2], empty.tensors[n][0]) for n, v in null.tensors.items())
    x_0 = ours.sample(x_T, ours.encode(PROMPTS), generators(1, 2))
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)
    assert len(runs) == 3
    outline = SDXLTeacherConfig(model=str(tmp_path / "model")).outline()
    assert outline.null(2).tensors["prompt"].is_meta


def test_guidance_changes_the_sample(tiny_sdxl: Path, teacher: Any) -> None:
    guided = load_teacher(tiny_sdxl, TeacherOptions(guidance=5.0))
    x_T, cond = noise(1), teacher.encode(PROMPTS[:1])
    plain = teacher.sample(x_T, cond, generators(0))
    assert (guided.sample(x_T, cond, generators(0)) - plain).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        ({"name": "ddim", "steps": 8}, [999, 874, 749, 624, 499, 374, 249, 124]),
        ({"name": "dpm++", "steps": 8}, [999, 874, 749, 624, 499, 374, 249, 124]),
        ({"name": "euler", "steps": 4}, [999, 749, 499, 249]),
        ({"name": "lcm", "steps": 4}, [999, 759, 499, 259]),
        ({"name": "lcm", "steps": 1, "timesteps": (399,)}, [399]),
        ({"name": "lcm", "steps": 1, "timesteps": (999, 749, 499, 249)}, [999, 749, 499, 249]),
        ({"name": "euler", "steps": 1, "timesteps": (999, 499)}, [999, 499]),
    ],
)
def test_solver_grids(teacher: Any, options: dict[str, Any], grid: list[int]) -> None:
    solver = make_solver(schedule=teacher.pipe.scheduler.config, **options)
    assert solver.grid().tolist() == grid


def test_lcm_noise_belongs_to_the_picture(tiny_sdxl: Path) -> None:
    """A picture's sample depends on its own x_T and generator, not on who else is there."""
    lcm = load_teacher(tiny_sdxl, TeacherOptions(solver="lcm", timesteps=(999, 749, 499, 249)))
    x_T, cond = noise(3), lcm.encode([*PROMPTS, "a star"])
    together = lcm.sample(x_T, cond, generators(7, 8, 9))
    alone = lcm.sample(x_T[1:2], cond[1:2], generators(8))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    other = lcm.sample(x_T[1:2], cond[1:2], generators(5))
    assert (other - alone).abs().max() > 1e-2


def test_pictures_are_between_0_and_1(teacher: Any) -> None:
    pictures = teacher.decode(50 * noise(1))
    assert pictures.shape == (1, 3, 32, 32)
    assert float(pictures.min()) == 0.0
    assert float(pictures.max()) == 1.0


def test_half_precision_teacher_takes_and_gives_float32(tiny_sdxl: Path) -> None:
    half = load_teacher(tiny_sdxl, TeacherOptions(steps=2, guidance=2.0), dtype="bfloat16")
    assert {m.dtype for m in half.modules()} == {torch.bfloat16}
    x_0 = half.sample(noise(2), half.encode(PROMPTS), generators(0, 1))
    assert x_0.dtype == torch.float32
    assert half.decode(x_0).dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"timesteps": [999, 499]}, "`timesteps` is for lcm and euler"),
        (
            {"solver": "lcm", "timesteps": [249, 999]},
            "should fall, from noise to",
        ),
        ({"solver": "lcm", "timesteps": []}, "at least 1 item"),
        ({"guidance": -1}, "greater than or equal to 0"),
    ],
)
def test_bad_fields_get_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SDXLTeacherConfig.model_validate(fields)

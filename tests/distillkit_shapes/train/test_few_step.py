"""The few-step weights' training: its targets, its resume, and what it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillkit.randomness import noise
from distillkit_shapes.teacher import ShapesTeacherConfig
from distillkit_shapes.train.students import few_step


def weights(course: few_step.Course) -> list[torch.Tensor]:
    return [p.detach().clone() for p in course.student.network.module.parameters()]


def test_from_pure_noise_the_target_is_the_deterministic_teachers_sample() -> None:
    teacher = ShapesTeacherConfig(solver="ddim", steps=8, guidance=2.0).build()
    cond = teacher.encode(["a red ring on white", "two blue stars on black"])
    x_T_BCHW = noise(teacher.latent_shape, 0, "x_T", [0, 1], "cpu")
    drawn_BCHW = teacher.sample(x_T_BCHW, cond, [torch.Generator()] * 2)
    solved_BCHW = few_step.ode_solution(teacher, x_T_BCHW, 999, cond)
    assert torch.allclose(solved_BCHW, drawn_BCHW, atol=1e-4)
    assert (drawn_BCHW - few_step.ode_solution(teacher, x_T_BCHW, 874, cond)).abs().max() > 0.5


def test_each_cycle_begins_at_its_peak_and_falls_to_a_fiftieth() -> None:
    plan = few_step.FEW_STEP_32
    (first, peak), (second, lower), (third, _) = plan.cycles
    assert (plan.rate(0), plan.rate(first)) == (peak, lower)
    assert plan.rate(first - 1) == pytest.approx(peak / 50, rel=0.01)
    assert plan.updates == first + second + third
    with pytest.raises(ValueError, match="ended"):
        plan.rate(plan.updates)


def test_a_resumed_course_repeats_an_unbroken_one(tmp_path: Path) -> None:
    whole = few_step.make_course(tmp_path)
    few_step.update(whole, 1e-4)
    whole.save(tmp_path / "few_step.pt")
    losses = few_step.update(whole, 1e-4)

    resumed = few_step.make_course(tmp_path)
    begun = weights(resumed)
    resumed.load(tmp_path / "few_step.pt")
    assert few_step.update(resumed, 1e-4) == losses
    assert resumed.done == whole.done == 2
    assert all(map(torch.equal, weights(resumed), weights(whole)))
    assert not all(map(torch.equal, begun, weights(whole)))
    averages = zip(resumed.ema.weights.values(), whole.ema.weights.values(), strict=True)
    assert all(torch.equal(one, other) for one, other in averages)


def test_it_writes_a_unet_that_stock_diffusers_loads(tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    folder = tmp_path / "unet"
    few_step.train_few_step(tmp_path / "work", folder=folder, updates=1)
    names = {"config.json", "diffusion_pytorch_model.safetensors"}
    assert {file.name for file in folder.iterdir()} == names
    stored = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.float16}
    loaded = UNet2DConditionModel.from_pretrained(folder).state_dict()
    assert loaded.keys() == stored.keys()

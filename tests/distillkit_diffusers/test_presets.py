"""Published models by name: each on the very grid that its authors give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.errors import UserError
from distillkit.recipe.load import load_recipe
from distillkit.recipe.preflight import preflight
from distillkit_diffusers.choices import UNET_LAYERS
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetStudentConfig
from distillkit_diffusers.io.sdxl_files import SDXL_FILES
from distillkit_diffusers.presets import ONE_STEP_TIMESTEPS, PRESETS, unknown_targets
from distillkit_diffusers.solvers import make_solver
from tests.distillkit_diffusers.tiny import RECIPE, noise

EIGHT = [999, 874, 749, 624, 499, 374, 249, 124]
FOUR = [999, 749, 499, 249]
GRIDS = {
    "sdxl-base": list(range(961, 0, -40)),
    "dmd2-4step": FOUR,
    "dmd2-1step": [399],
    "hyper-sdxl-8step": EIGHT,
    "hyper-sdxl-1step": [800],
    "hyper-sdxl-unified": [999, 759, 499, 259],
    "lightning-1step": [999],
    "lightning-2step": [999, 499],
    "lightning-4step": FOUR,
    "lightning-8step": EIGHT,
    "sdxl-turbo": FOUR,
    "nitrosd-realism": [249, 187, 124, 62],
    "nitrosd-vibrant": [499, 374, 249, 124],
}
FILES = {
    "dmd2-4step": "tianweiy/DMD2/dmd2_sdxl_4step_unet_fp16.bin",
    "dmd2-1step": "tianweiy/DMD2/dmd2_sdxl_1step_unet_fp16.bin",
    "hyper-sdxl-8step": "ByteDance/Hyper-SD/Hyper-SDXL-8steps-lora.safetensors",
    "hyper-sdxl-1step": "ByteDance/Hyper-SD/Hyper-SDXL-1step-Unet.safetensors",
    "hyper-sdxl-unified": "ByteDance/Hyper-SD/Hyper-SDXL-1step-lora.safetensors",
    "lightning-1step": "ByteDance/SDXL-Lightning/sdxl_lightning_1step_unet_x0.safetensors",
    "lightning-2step": "ByteDance/SDXL-Lightning/sdxl_lightning_2step_unet.safetensors",
    "nitrosd-realism": "ChenDY/NitroFusion/nitrosd-realism_unet.safetensors",
}


@pytest.mark.parametrize("name", PRESETS)
def test_grid(name: str) -> None:
    config = SDXLTeacherConfig.model_validate({"preset": name})
    schedule = json.loads((SDXL_FILES / "scheduler/scheduler_config.json").read_text())
    solver = make_solver(
        config.solver,
        schedule,
        config.steps,
        config.spacing,
        config.timesteps,
        config.timestep_shift,
        config.eta,
    )
    assert [round(float(t)) for t in solver.grid()] == GRIDS[name]
    assert config.guidance == (7.5 if name == "sdxl-base" else 0)
    assert config.prediction == ("sample" if name == "lightning-1step" else None)
    if name in FILES:
        assert FILES[name] in (config.unet, config.lora)
    repo = "stabilityai/" + (name if name == "sdxl-turbo" else "stable-diffusion-xl-base-1.0")
    assert (config.model, config.variant) == (repo, "fp16")


def test_fields_of_the_recipe_override_the_presets() -> None:
    config = SDXLTeacherConfig.model_validate(
        {"preset": "hyper-sdxl-8step", "model": "./mine", "steps": 4, "lora": "./hyper.safetensors"}
    )
    assert (config.model, config.variant, config.steps) == ("./mine", None, 4)
    assert (config.lora, config.solver) == ("./hyper.safetensors", "ddim")
    assert SDXLTeacherConfig.model_validate(config.model_dump()) == config


def test_an_unknown_preset_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"no preset 'dmd2-4steps'; did you mean 'dmd2-4step'\?"):
        SDXLTeacherConfig.model_validate({"preset": "dmd2-4steps"})


@pytest.mark.parametrize("name", ["hyper-sdxl-unified", "sdxl-turbo", "nitrosd-vibrant"])
def test_solvers_that_draw_draw_by_the_picture(tiny_sdxl: Path, name: str) -> None:
    given = {"preset": name, "model": str(tiny_sdxl), "unet": None, "lora": None}
    teacher = SDXLTeacherConfig.model_validate(given | {"dtype": "float32"}).build()
    cond, x_T = teacher.encode(["a", "b"]), noise(2)

    def drawn(*seeds: int, rows: slice = slice(None)) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return teacher.sample(x_T[rows], cond[rows], generators)

    both = drawn(3, 4)
    torch.testing.assert_close(drawn(4, rows=slice(1, 2)), both[1:], rtol=1e-4, atol=1e-4)
    assert (drawn(5, rows=slice(1, 2)) - both[1:]).abs().max() > 1e-2


def test_a_teacher_that_predicts_x_0(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Lightning's one-step file: the sample is the network's output, as the student's is."""
    given = {"preset": "lightning-1step", "model": str(tiny_sdxl), "unet": None}
    teacher = SDXLTeacherConfig.model_validate(given | {"dtype": "float32"}).build()
    cond, x_T = teacher.encode(["a"]), noise(1)
    scheduler = make_solver("euler", teacher.pipe.scheduler.config, 1).scheduler  # type: ignore[attr-defined]
    scheduler.set_timesteps(1)
    x_t = scheduler.scale_model_input(x_T * scheduler.init_noise_sigma, scheduler.timesteps[0])
    x_0 = teacher.sample(x_T, cond, [torch.Generator()])
    with torch.no_grad():
        expected = teacher.denoiser(x_t, torch.tensor([999]), cond)
    torch.testing.assert_close(x_0, expected, rtol=1e-4, atol=1e-4)
    student = UNetStudentConfig().build(teacher)
    assert student.prediction == "sample"
    student.publish(tmp_path / "student", 500)
    for part in ("scheduler", "scheduler_shift"):
        config = json.loads((tmp_path / f"student/{part}/scheduler_config.json").read_text())
        assert config["prediction_type"] == "sample"


@pytest.mark.usefixtures("no_hub")
def test_a_presets_missing_files_are_named() -> None:
    with pytest.raises(UserError) as error:
        SDXLTeacherConfig.model_validate({"preset": "nitrosd-vibrant"}).build()
    message = str(error.value)
    assert "hf download ChenDY/NitroFusion nitrosd-vibrant_unet.safetensors" in message
    assert "--set teacher.unet=models/NitroFusion/nitrosd-vibrant_unet.safetensors" in message


def test_the_timesteps_of_one_step_starts_are_those_that_their_teachers_run_at() -> None:
    """A preset with one timestep says the same; shifted students run at floor(999 shift / 1000)."""
    for name, own in ONE_STEP_TIMESTEPS.items():
        fields = PRESETS[name]
        if len(fields.get("timesteps", ())) == 1:
            assert fields["timesteps"] == (own,)
        if "timestep_shift" in fields:
            assert 999 * fields["timestep_shift"] // 1000 == own


@pytest.mark.parametrize("targets", ["nope", "to_q2, attn1.nope"])
def test_targets_that_no_layer_has_are_told_before_the_teacher_is_loaded(
    tiny_sdxl: Path, tmp_path: Path, targets: str
) -> None:
    (tmp_path / "my.yaml").write_text(RECIPE.format(model=tiny_sdxl))
    sets = ("student.train=lora", f"student.targets=[{targets}]")
    ends = targets.replace(", ", " or ")
    said = f"student.targets: no layer of a UNet has a name that ends in {ends}; names end in to_q,"
    with pytest.raises(UserError, match=said):
        preflight(load_recipe(tmp_path / "my.yaml", sets))


def test_the_layers_that_targets_may_name_are_the_unets(teacher: Any) -> None:
    modules = teacher.pipe.unet.named_modules()
    layers = [f".{n}" for n, m in modules if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert all(name.endswith(tuple(f".{end}" for end in UNET_LAYERS)) for name in layers)
    for end in UNET_LAYERS:
        assert any(name.endswith(f".{end}") for name in layers), end
        config = UNetStudentConfig(train="lora", targets=("nope", end))
        assert not list(unknown_targets(config))

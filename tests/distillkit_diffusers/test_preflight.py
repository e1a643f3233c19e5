"""`check`, `plan` and friends tell what is missing before a pipeline is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distillkit.errors import UserError
from distillkit.recipe.load import LoadedRecipe, load_recipe
from distillkit.recipe.preflight import describe_critics, preflight
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig
from distillkit_diffusers.io.model_configs import level_channels
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit_diffusers.tiny import command

RECIPE = """\
prompts: {{type: list, prompts: [a ring]}}
teacher: {{type: sdxl, model: {model}, dtype: float32, steps: 1}}
student: {{type: unet, timestep_shift: 250}}
backbone: {{type: unet-encoder}}
pool: {{type: dynamic, timesteps: [10, 500], heads_per_slot: 2, width: 16, depth: 1}}
refresh: {{type: random, fraction: 0.05}}
losses: [{{type: hinge}}]
refinement: {{type: bottom-up, stages: {{1: 2}}}}
optim: {{student: {{lr: 1.0e-4}}, critic: {{lr: 1.0e-4}}}}
"""
START = (
    "student.start: the teacher's weights need many steps, and there is no warm-up to one step: "
    "without `warmup.student` and `warmup.losses` the critics win from the start"
)


@pytest.fixture
def file(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "my.yaml"
    path.write_text(RECIPE.format(model=tiny_sdxl))
    return path


def loaded(file: Path, *sets: str) -> LoadedRecipe:
    return load_recipe(file, sets)


MISSING = [
    ("teacher.model=./gone", "set teacher.model to a path that exists, or to a hub id (owner/repo"),
    ("teacher.model=gone", "set teacher.model to a path that exists"),
    ("teacher.model=/models/gone.safetensors", "or to a file on the hub (owner/repo/file)"),
    ("teacher.unet=gone.safetensors", "set teacher.unet to a path that exists, or to a file on th"),
    ("teacher.vae=~/gone", "set teacher.vae to a path that exists"),
    ("teacher.config=gone", "set teacher.config to a path that exists"),
    ("student.start=gone.safetensors", "set student.start to a path that exists"),
    ("backbone={type: unet-encoder, of: base, model: gone}", "set backbone.model to a path that"),
    ("teacher.variant=fp16", "tiny-sdxl has no files of the variant 'fp16'; leave `variant` out"),
    ("backbone.levels=99", "backbone.levels: 99, but the UNet has 10"),
    ("pool.levels=[3, 99]", "pool.levels: there is no level 99; the backbone's levels are 0 to 9"),
    ("pool.width=8388608", "billion parameters, and at most"),
    ("pool.heads_per_slot=1000000000", "heads with"),
]


@pytest.mark.parametrize(("flag", "sentence"), MISSING)
def test_what_is_missing_is_told_by_check_and_plan(
    file: Path, flag: str, sentence: str, capsys: Any
) -> None:
    for what in ("check", "plan"):
        assert command(what, file, "--set", flag) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith((f"--set {flag}: ", f"{file}:"))
        assert sentence in line


def test_levels_are_counted_on_the_levels_that_are_left(file: Path) -> None:
    with pytest.raises(UserError, match="no level 5; the backbone's levels are 0 to 2"):
        preflight(loaded(file, "backbone.levels=3", "pool.levels=[5]"))


def test_notes_stop_nothing(file: Path, capsys: Any) -> None:
    """Many-step weights without a warm-up, and sizes that can't be known."""
    assert preflight(loaded(file)) == [START]
    warm = ("warmup.student=5", "warmup.losses=[{type: regression}]")
    assert preflight(loaded(file, *warm)) == []
    note = "teacher.model: 'owner/gone' is no folder here: its sizes are taken to be those of SDXL"
    assert preflight(loaded(file, *warm, "teacher.model=owner/gone")) == [f"{note} base 1.0"]
    assert command("check", file) == 0
    assert f"note: {START}\n" in capsys.readouterr().out


def test_a_lora_needs_peft(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distillkit_diffusers.io.model_configs.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"teacher.lora: LoRAs need peft: pip install 'peft"):
        preflight(loaded(file, "teacher.lora=owner/repo/lora.safetensors"))


def test_the_size_of_the_pool_is_that_of_its_heads(file: Path, teacher: Any) -> None:
    """2 t* x 3 views x 10 levels x 2 heads, without loading the UNet whose channels they read."""
    recipe = loaded(file, "pool.depth=2").recipe
    channels = level_channels(teacher.pipe.unet.config)
    assert recipe.backbone is not None
    assert recipe.pool is not None
    assert recipe.backbone.level_channels(recipe.teacher) == channels
    heads = recipe.pool.build(channels, 0).heads
    size = recipe.pool.pool_size(channels)
    assert size == (120, sum(p.numel() for p in heads.parameters()))
    [line] = describe_critics(recipe)
    assert line == (
        f"120 heads with {size.parameters / 1e6:.1f} M parameters; a head lives 20 iterations and "
        "is trained 5.0 times, on average"
    )


def test_sdxls_own_levels_are_known_without_a_file() -> None:
    """320 x4, 640 x3, 1280 x3."""
    channels = UNetEncoderConfig().level_channels(SDXLTeacherConfig())
    assert channels == (320,) * 4 + (640,) * 3 + (1280,) * 3
    assert UNetEncoderConfig().level_channels(SDXLTeacherConfig(model="owner/other")) is None


def test_a_variant_without_files_is_told_by_the_loader_too(tiny_sdxl: Path) -> None:
    with pytest.raises(
        UserError, match=r"^teacher.variant: .*no files of the variant 'fp16'; leav"
    ):
        load_teacher(tiny_sdxl, variant="fp16")


@pytest.mark.usefixtures("no_hub")
def test_a_variant_that_the_hub_does_not_give_may_be_left_out() -> None:
    with pytest.raises(UserError, match=r"or leave teacher\.variant out, if there are no such"):
        load_teacher("owner/repo", variant="fp16")

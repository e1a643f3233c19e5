"""The families as files: `adapt` adds a difference, `sample FOLDER` draws as the student does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit import testing
from distillkit.errors import UserError
from distillkit.evaluation.sampling import open_model
from distillkit.registry.entry_points import installed
from distillkit.registry.layouts import installed_layouts
from distillkit.training.models.student import Student
from distillkit_diffusers.export.configs import (
    Flux2LayoutConfig,
    SD3LayoutConfig,
    ZImageLayoutConfig,
)
from tests.distillkit.launch import command
from tests.distillkit_diffusers.flow.tiny import PROMPTS, Tiny
from tests.distillkit_diffusers.tiny import perturbed

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def test_contracts() -> None:
    for config in (SD3LayoutConfig(), ZImageLayoutConfig(), Flux2LayoutConfig()):
        testing.check(config)


def test_a_file_is_of_one_family(kind: str, folder: Path) -> None:
    layouts = installed_layouts(installed().registry)
    for path in (folder, folder / WEIGHTS):
        assert [n for n, layout in layouts.items() if layout.recognises(path)] == [kind]
    assert not any(layout.recognises(folder / "vae") for layout in layouts.values())


def test_adapt_adds_the_difference(folder: Path, tmp_path: Path) -> None:
    """Half of it; tensors may have a prefix."""
    base = load_file(folder / WEIGHTS)
    for name, more, prefix in (("student", 1.0, ""), ("custom", 3.0, "model.diffusion_model.")):
        save_file({prefix + n: w + more for n, w in base.items()}, tmp_path / f"{name}.safetensors")
    files = {"student": tmp_path / "student.safetensors", "base": folder / WEIGHTS}
    words = [word for n, file in files.items() for word in (f"--{n}", file)]
    out = tmp_path / "out.safetensors"
    words += ["--onto", tmp_path / "custom.safetensors", "--out", out, "--strength", "0.5"]
    assert command("adapt", *words) == 0
    made = load_file(out)
    for name, weight in base.items():
        torch.testing.assert_close(made[f"model.diffusion_model.{name}"], weight + 3.5)


@pytest.mark.parametrize("levels", [[999, 749, 499, 249], [999, 599.5, 332, 142]])
def test_a_published_folder_is_opened_as_it_draws(
    tiny: Tiny, teacher: Any, tmp_path: Path, levels: list[float]
) -> None:
    """With its sampler, its noise levels and its pictures' size, and no shift that must be
    named."""
    fields = {"train": "lora", "rank": 2, "sampler": "euler", "levels": levels}
    config = tiny.student.model_validate(fields)
    network: Any = perturbed(config.build(teacher))
    network.publish(tmp_path / "student", 1000)
    own = Student.of(network, teacher.schedule, config)
    made, student = open_model(str(tmp_path / "student"), None, None)
    assert (made.latent_shape, student.sampler) == (tiny.latent_shape, "euler")
    x_T, cond = tiny.noise(2), teacher.encode(PROMPTS)
    with torch.no_grad():
        renoise = x_T.expand(3, *x_T.shape)
        drawn, expected = (s.rollout(x_T, cond, 4, renoise) for s in (student, own))
    torch.testing.assert_close(drawn, expected, rtol=1e-4, atol=1e-4)
    assert list(student.levels) == levels


def test_a_folder_whose_settings_cant_be_read_is_a_sentence(
    teacher: Any, tiny: Tiny, tmp_path: Path
) -> None:
    network: Any = tiny.student().build(teacher)
    network.publish(tmp_path / "student", 1000)
    (tmp_path / "student" / "distillkit.json").write_text('{"levels": [1, 2, 3, 4]}')
    with pytest.raises(UserError, match=r"distillkit\.json can't be read, .* levels: .* fall"):
        open_model(str(tmp_path / "student"), None, None)

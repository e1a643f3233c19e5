"""The SDXL family as files: what is recognised, which shift a folder states, how it is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit_diffusers.configs import UNetStudentConfig
from distillkit_diffusers.export.layout import SDXLLayout
from distillkit_diffusers.io.single_file import original_tensors
from distillkit_diffusers.io.tensor_names import UNET
from tests.distillkit_diffusers.tiny import UNET_FILE, noise

LAYOUT = SDXLLayout()


def pipeline_folder(index: str) -> Any:
    def make(tiny_sdxl: Path, to: Path) -> Path:
        to.mkdir()
        (to / "model_index.json").write_text(index)
        return to

    return make


def published(tiny_sdxl: Path, to: Path) -> Path:
    return tiny_sdxl


def empty_folder(tiny_sdxl: Path, to: Path) -> Path:
    to.mkdir()
    return to


def unet_file(tiny_sdxl: Path, to: Path) -> Path:
    return tiny_sdxl / UNET_FILE


def vae_file(tiny_sdxl: Path, to: Path) -> Path:
    return tiny_sdxl / "vae/diffusion_pytorch_model.safetensors"


def original_unet(tiny_sdxl: Path, to: Path) -> Path:
    """Two names are enough to tell the original layout."""
    to = to.with_suffix(".safetensors")
    names = ("label_emb.0.0.weight", "input_blocks.0.0.weight")
    save_file({UNET + name: torch.zeros(1) for name in names}, to)
    return to


def truncated(tiny_sdxl: Path, to: Path) -> Path:
    to = to.with_suffix(".safetensors")
    to.write_bytes((tiny_sdxl / UNET_FILE).read_bytes()[:100])
    return to


def pickled(tiny_sdxl: Path, to: Path) -> Path:
    """A pickle is not opened only to recognise it."""
    to = to.with_suffix(".bin")
    torch.save(load_file(tiny_sdxl / UNET_FILE), to)
    return to


def missing(tiny_sdxl: Path, to: Path) -> Path:
    return to.with_suffix(".safetensors")


@pytest.mark.parametrize(
    ("make", "recognised"),
    [
        (published, True),
        (unet_file, True),
        (original_unet, True),
        (pipeline_folder('{"_class_name": "StableDiffusionXLImg2ImgPipeline"}'), True),
        (pipeline_folder('{"_class_name": "StableDiffusionPipeline"}'), False),
        (pipeline_folder('{"_class_name": ["StableDiffusionXLPipeline"]}'), False),
        (pipeline_folder("[]"), False),
        (pipeline_folder("{"), False),
        (empty_folder, False),
        (vae_file, False),
        (truncated, False),
        (pickled, False),
        (missing, False),
    ],
)
def test_recognises(tiny_sdxl: Path, tmp_path: Path, make: Any, recognised: bool) -> None:
    assert LAYOUT.recognises(make(tiny_sdxl, tmp_path / "model")) is recognised


@pytest.mark.parametrize("remote_code", [False, True])
def test_a_published_folder_states_its_shift(
    teacher: Any, tmp_path: Path, remote_code: bool
) -> None:
    student: Any = UNetStudentConfig().build(teacher)
    student.publish(tmp_path / "student", 250, remote_code)
    assert LAYOUT.published_shift(tmp_path / "student") == 250


def test_a_folder_of_the_base_states_no_shift(tiny_sdxl: Path, tmp_path: Path) -> None:
    assert LAYOUT.published_shift(tiny_sdxl) is None
    assert LAYOUT.published_shift(tmp_path / "none") is None


@pytest.mark.parametrize("config", ["{", "[]", json.dumps({"shifted_timestep": "500"})])
def test_a_config_that_states_no_number_states_no_shift(tmp_path: Path, config: str) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(config)
    assert LAYOUT.published_shift(tmp_path) is None


def test_open_gives_the_model_with_the_weights_in_its_unet(
    teacher: Any, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """Weights times two, with their original names; the other networks are the model's."""
    own = original_tensors(teacher.pipe, teacher.pipe.unet, torch.float32)
    weights = tmp_path / "weights.safetensors"
    save_file({n: 2 * w for n, w in own.items() if n.startswith(UNET)}, weights)
    opened: Any = LAYOUT.open(str(tiny_sdxl), str(weights), "float32")
    assert torch.equal(opened.pipe.unet.conv_in.weight, 2 * teacher.pipe.unet.conv_in.weight)
    assert torch.equal(opened.decode(noise(1)), teacher.decode(noise(1)))


def test_open_without_weights_and_in_half_precision(teacher: Any, tiny_sdxl: Path) -> None:
    opened: Any = LAYOUT.open(str(tiny_sdxl), None, "bfloat16")
    own = teacher.pipe.unet.conv_in.weight
    assert torch.equal(opened.pipe.unet.conv_in.weight, own.bfloat16())


def test_open_refuses_weights_of_another_network(tiny_sdxl: Path) -> None:
    vae = str(tiny_sdxl / "vae/diffusion_pytorch_model.safetensors")
    with pytest.raises(
        UserError, match=r"teacher\.unet: .* is a VAE, and the UNet of an SDXL-class"
    ):
        LAYOUT.open(str(tiny_sdxl), vae, "float32")

"""Replacements in a pipeline, and the errors for files that are missing or wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig, UNetStudentConfig
from distillkit_diffusers.io.loading import load_unet
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit_diffusers.tiny import UNET_FILE


def doubled_unet(folder: Path, to: Path) -> Path:
    """The folder's UNet weights times two, as safetensors or as a .bin."""
    weights = {name: 2 * w for name, w in load_file(folder / UNET_FILE).items()}
    save_file(weights, to) if to.suffix == ".safetensors" else torch.save(weights, to)
    return to


@pytest.mark.parametrize("name", ["unet.safetensors", "unet.bin"])
def test_unet_from_a_file(tiny_sdxl: Path, teacher: Any, tmp_path: Path, name: str) -> None:
    path = doubled_unet(tiny_sdxl, tmp_path / name)
    other = load_teacher(tiny_sdxl, unet=str(path))
    expected = 2 * teacher.pipe.unet.conv_in.weight
    torch.testing.assert_close(other.pipe.unet.conv_in.weight, expected)


def test_vae_from_a_folder(tiny_sdxl: Path, teacher: Any) -> None:
    other = load_teacher(tiny_sdxl, vae=str(tiny_sdxl / "vae"))
    for a, b in zip(other.pipe.vae.parameters(), teacher.pipe.vae.parameters(), strict=True):
        assert torch.equal(a, b)


def test_lora_is_fused_with_its_strength(tiny_sdxl: Path, teacher: Any, tmp_path: Path) -> None:
    """W' = W + strength * B A: with alpha = rank and one row of ones and twos, by hand."""
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = teacher.pipe.unet.get_submodule(name).weight
    down, up = torch.ones(1, weight.shape[1]), torch.full((weight.shape[0], 1), 2.0)
    path = tmp_path / "lora.safetensors"
    save_file({f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up}, path)
    fused = load_teacher(tiny_sdxl, lora=str(path), lora_strength=0.5)
    torch.testing.assert_close(fused.pipe.unet.get_submodule(name).weight, weight + 1.0)
    assert fused.pipe.unet.state_dict().keys() == teacher.pipe.unet.state_dict().keys()
    assert not any(p.requires_grad for p in fused.pipe.unet.parameters())


def test_unet_from_a_pipeline_folder(tiny_sdxl: Path, teacher: Any) -> None:
    unet = load_unet(str(tiny_sdxl), teacher.pipe.unet, "student.start", torch.float32)
    torch.testing.assert_close(unet.conv_in.weight, teacher.pipe.unet.conv_in.weight)


@pytest.mark.usefixtures("no_hub")
def test_everything_that_is_missing_is_in_one_error() -> None:
    config = SDXLTeacherConfig(
        variant="fp16",
        unet="tianweiy/DMD2/dmd2_sdxl_4step_unet_fp16.bin",
        lora="./lora.safetensors",
        vae="madebyollin/sdxl-vae-fp16-fix",
    )
    with pytest.raises(UserError) as error:
        config.build()
    message = str(error.value)
    assert message.startswith("4 files are missing. Download what is listed on a machine with")
    base = "stabilityai/stable-diffusion-xl-base-1.0"
    assert f"hf download {base} model_index.json scheduler/" in message
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in message
    assert "--set teacher.model=models/stable-diffusion-xl-base-1.0\n" in message
    assert (
        "hf download tianweiy/DMD2 dmd2_sdxl_4step_unet_fp16.bin --local-dir models/DMD2\n"
        "    --set teacher.unet=models/DMD2/dmd2_sdxl_4step_unet_fp16.bin"
    ) in message
    assert "--set teacher.vae=models/sdxl-vae-fp16-fix" in message
    assert (
        "teacher.lora: './lora.safetensors' is not on this machine, and there is no such file or "
        "folder\n    set teacher.lora to a path that exists, or to a file on the hub (owner/repo/fi"
    ) in message


@pytest.mark.usefixtures("no_hub")
def test_missing_student_and_backbone_weights_are_named(teacher: Any) -> None:
    start = "ByteDance/Hyper-SD/Hyper-SDXL-1step-Unet.safetensors"
    with pytest.raises(UserError, match=r"--set student\.start=models/Hyper-SD/Hyper-SDXL-1step"):
        UNetStudentConfig(start=start).build(teacher)
    with pytest.raises(UserError, match=r"backbone\.model: 'no/such' is not on this machine"):
        UNetEncoderConfig(of="base", model="no/such").build(teacher)


def break_index(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def remove_unet(folder: Path) -> None:
    (folder / UNET_FILE).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (break_index, "is a FluxPipeline, and a StableDiffusionXLPipeline is needed"),
        (remove_unet, f"is incomplete: it lacks {UNET_FILE}; download it again, or copy"),
        (lambda folder: (folder / "model_index.json").unlink(), "it has no model_index.json"),
    ],
)
def test_wrong_folders_get_a_sentence(
    tiny_sdxl: Path, tmp_path: Path, damage: Any, sentence: str
) -> None:
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(tiny_sdxl, folder)
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        load_teacher(folder)


def truncated(folder: Path, to: Path) -> None:
    to.write_bytes((folder / UNET_FILE).read_bytes()[:5000])


def of_a_vae(folder: Path, to: Path) -> None:
    to.write_bytes((folder / "vae/diffusion_pytorch_model.safetensors").read_bytes())


def of_another_size(folder: Path, to: Path) -> None:
    weights = load_file(folder / UNET_FILE)
    save_file({**weights, "conv_in.weight": torch.zeros(9, 4, 3, 3)}, to)


@pytest.mark.parametrize(
    ("make", "field", "sentence"),
    [
        (truncated, "unet", "teacher.unet: .*x.safetensors cannot be read"),
        (of_a_vae, "unet", "x.safetensors is a VAE, and the UNet of an SDXL-class model is needed"),
        (of_another_size, "unet", r"conv_in.weight is \(9, 4, 3, 3\) and should be \(8, 4, 3, 3\)"),
        (of_a_vae, "lora", "teacher.lora: .*x.safetensors is not a LoRA for this model"),
    ],
)
def test_wrong_files_get_a_sentence(
    tiny_sdxl: Path, tmp_path: Path, make: Any, field: str, sentence: str
) -> None:
    path = tmp_path / "x.safetensors"
    make(tiny_sdxl, path)
    with pytest.raises(UserError, match=sentence):
        load_teacher(tiny_sdxl, **{field: str(path)})


class Evil:
    """Unpickling it would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/nonexistent/ran"),))


def test_pickles_that_run_code_are_refused(tiny_sdxl: Path, tmp_path: Path) -> None:
    path = tmp_path / "evil.bin"
    torch.save({"conv_in.weight": Evil()}, path)
    with pytest.raises(UserError, match="is not a plain file of weights"):
        load_teacher(tiny_sdxl, unet=str(path))


def test_another_familys_teacher_is_refused() -> None:
    class PixelTeacher: ...

    with pytest.raises(UserError, match="backbone unet-encoder needs a teacher of the SDXL"):
        UNetEncoderConfig().build(PixelTeacher())  # type: ignore[arg-type]

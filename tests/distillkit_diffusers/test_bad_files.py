"""Wrong files, paths that can't be written, a full disk: one sentence each, no partial files."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from distillkit.errors import UserError
from distillkit_diffusers.configs import UNetEncoderConfig, UNetStudentConfig
from distillkit_diffusers.export.exporters import (
    FolderExporter,
    LoRAExporter,
    SingleFileExporter,
    UNetExporter,
)
from distillkit_diffusers.io.tensor_names import unet_names
from distillkit_diffusers.teacher import load_teacher
from tests.distillkit.launch import told
from tests.distillkit_diffusers.tiny import UNET_FILE


class Evil:
    """Unpickling it would run code."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/nonexistent/ran"),))


def vae(folder: Path, to: Path) -> Path:
    to = to.with_suffix(".safetensors")
    to.write_bytes((folder / "vae/diffusion_pytorch_model.safetensors").read_bytes())
    return to


def text_encoder(folder: Path, to: Path) -> Path:
    to = to.with_suffix(".safetensors")
    to.write_bytes((folder / "text_encoder/model.safetensors").read_bytes())
    return to


def sd_15_unet(folder: Path, to: Path) -> Path:
    """Without the embedding of size and crop."""
    to = to.with_suffix(".safetensors")
    weights = load_file(folder / UNET_FILE)
    save_file({n: w for n, w in weights.items() if not n.startswith("add_embedding")}, to)
    return to


def sd_15_checkpoint(folder: Path, to: Path) -> Path:
    to = to.with_suffix(".safetensors")
    weights = load_file(folder / UNET_FILE)
    names = unet_names(weights)
    old = {f"model.diffusion_model.{names[n]}": w for n, w in weights.items()}
    old = {n: w for n, w in old.items() if "label_emb" not in n}
    save_file(old | {"cond_stage_model.transformer.x": torch.zeros(1)}, to)
    return to


def truncated(folder: Path, to: Path) -> Path:
    to = to.with_suffix(".safetensors")
    to.write_bytes((folder / UNET_FILE).read_bytes()[:-1000])
    return to


def evil(folder: Path, to: Path) -> Path:
    to = to.with_suffix(".ckpt")
    torch.save({"conv_in.weight": Evil()}, to)
    return to


def not_a_state_dict(folder: Path, to: Path) -> Path:
    to = to.with_suffix(".bin")
    torch.save([1, 2, 3], to)
    return to


WRONG = {
    vae: "is a VAE, and ",
    text_encoder: "is a text encoder, and ",
    sd_15_unet: "is a UNet without SDXL's size and crop embedding, such as Stable Diffusion 1.5's",
    sd_15_checkpoint: "is a checkpoint of Stable Diffusion 1 or 2, not of SDXL, and ",
    truncated: "cannot be read: ",
    evil: "is not a plain file of weights; get its .safetensors form",
    not_a_state_dict: "is not a mapping of names to tensors",
}


@pytest.mark.parametrize("make", WRONG, ids=lambda make: make.__name__)
@pytest.mark.parametrize("field", ["teacher.unet", "student.start", "backbone.model"])
def test_a_wrong_file_where_a_unet_is_needed(
    teacher: Any, tiny_sdxl: Path, tmp_path: Path, make: Any, field: str
) -> None:
    path = make(tiny_sdxl, tmp_path / "x")
    sentence = f"{field}: {re.escape(str(path))} {re.escape(WRONG[make])}"
    use = {
        "teacher.unet": lambda: load_teacher(tiny_sdxl, unet=str(path)),
        "student.start": lambda: UNetStudentConfig(start=str(path)).build(teacher),
        "backbone.model": lambda: UNetEncoderConfig(of="base", model=str(path)).build(teacher),
    }
    with pytest.raises(UserError, match=sentence) as error:
        use[field]()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("make", "field"), [(evil, "model"), (evil, "lora"), (truncated, "lora")])
def test_wrong_files_elsewhere_in_a_teacher(
    tiny_sdxl: Path, tmp_path: Path, make: Any, field: str
) -> None:
    fields = {"model": tiny_sdxl, field: make(tiny_sdxl, tmp_path / "x")}
    fields = {name: str(value) for name, value in fields.items()}
    with pytest.raises(UserError, match=f"teacher.{field}: {re.escape(fields[field])} ") as error:
        load_teacher(**fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [vae, sd_15_unet, sd_15_checkpoint, truncated])
def test_a_wrong_file_in_a_transfer(
    tiny_sdxl: Path, tmp_path: Path, capsys: Any, make: Any
) -> None:
    path, unet = make(tiny_sdxl, tmp_path / "x"), tiny_sdxl / UNET_FILE
    words = ["adapt", "--student", unet, "--base", path, "--onto", unet, "--out"]
    message = told(2, *words, tmp_path / "out.safetensors", capsys=capsys)
    assert message.startswith(f"--base: {path} {WRONG[make].removesuffix(', and ')}")
    assert message.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Writing past `size` bytes of a file fails, as on a full disk it would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


EXPORTERS = [
    FolderExporter("fp32"),
    UNetExporter("fp32"),
    SingleFileExporter("fp32"),
    LoRAExporter("fp32", 8, None),
]


@pytest.fixture(scope="module")
def student(teacher: Any) -> Any:
    student: Any = UNetStudentConfig().build(teacher)
    with torch.no_grad():
        for p in student.module.parameters():
            p.mul_(1.01)
    return student


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda exporter: type(exporter).__name__)
def test_a_full_disk_leaves_what_was_there(student: Any, tmp_path: Path, exporter: Any) -> None:
    path = tmp_path / f"student{exporter.suffix}"
    exporter.export(student, 500, path)
    there = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with (
        files_end_at(20_000),
        pytest.raises(UserError, match=r"Could not write .*; free some space"),
    ):
        exporter.export(student, 250, path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == there


@pytest.mark.parametrize("exporter", EXPORTERS, ids=lambda exporter: type(exporter).__name__)
def test_a_path_that_can_not_be_written(student: Any, tmp_path: Path, exporter: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"Could not write .*/file is a file, not a folder\."):
        exporter.export(student, 500, tmp_path / "file" / f"student{exporter.suffix}")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]

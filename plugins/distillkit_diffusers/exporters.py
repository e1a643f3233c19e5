"""The student of an SDXL-class run as a folder or a file that other software loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distillkit.atomic import appearing, write_tensors
from distillkit.errors import UserError
from distillkit.exchange import SHIFT_KEY
from distillkit_diffusers.loading import base_unet, load_unet
from distillkit_diffusers.lora import extract
from distillkit_diffusers.publish import publish_pipeline, shift_page
from distillkit_diffusers.single_file import original_tensors
from distillkit_diffusers.student import UNetStudent

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.contracts import StudentNetwork
    from distillkit_diffusers.words import Short

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass
class FolderExporter:
    """Fulfils `distillkit.exchange.Exporter`: a StableDiffusionXLPipeline folder."""

    dtype: Short | None
    remote_code: bool = False
    """Whether our scheduler is the pipeline's own, for `trust_remote_code=True`."""
    suffix: str = ""

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        student = sdxl_student(network, "diffusers")
        if self.dtype is None:
            student.publish(path, timestep_shift, self.remote_code)
        else:
            unet = student.unet(DTYPES[self.dtype])
            publish_pipeline(student.teacher.pipe, unet, path, timestep_shift, self.remote_code)
        return ["a diffusers pipeline; README.md in it shows one to four steps"]


@dataclass
class UNetExporter:
    """Fulfils `distillkit.exchange.Exporter`: one safetensors file with diffusers' names."""

    dtype: Short
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        weights = sdxl_student(network, "unet").unet(DTYPES[self.dtype]).state_dict()
        _save(path, weights, timestep_shift, "diffusion_models")
        return [f"the UNet alone, diffusers' names, {self.dtype}, shift {timestep_shift}"]


@dataclass
class SingleFileExporter:
    """Fulfils `distillkit.exchange.Exporter`: UNet, VAE and both text encoders in one file."""

    dtype: Short
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        student = sdxl_student(network, "single-file")
        pipe, dtype = student.teacher.pipe, DTYPES[self.dtype]
        tensors = original_tensors(pipe, student.unet(dtype), dtype)
        _save(path, tensors, timestep_shift, "checkpoints")
        said = [f"a checkpoint in SDXL's original layout, {self.dtype}, shift {timestep_shift}"]
        widths = {e.config.hidden_size for e in (pipe.text_encoder, pipe.text_encoder_2)}
        if len(widths) == 1:
            said.append(
                "both text encoders have the same width here, by which diffusers' from_single_file "
                "tells them apart: it reads true SDXL's files, and not this one"
            )
        return said


@dataclass
class LoRAExporter:
    """Fulfils `distillkit.exchange.Exporter`: the low-rank part of student minus base."""

    dtype: Short
    rank: int
    base: str | None
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        student = sdxl_student(network, "lora")
        if self.base is None:
            base = base_unet(student.teacher)
        else:
            like = student.teacher.pipe.unet
            base = load_unet(self.base, like, "--base", torch.float32)
        unet = student.unet(torch.float32)
        found = extract(unet.state_dict(), base.state_dict(), self.rank, DTYPES[self.dtype])
        if not found.tensors:
            raise UserError(
                "export --to lora: the student's matrices are its base's; train it first, or name "
                "another --base"
            )
        _save(path, found.tensors, timestep_shift, "loras")
        said = [
            f"a LoRA of rank {self.rank}, {self.dtype}, shift {timestep_shift}",
            f"it keeps {found.share:.2%} of the difference to its base (squared Frobenius norm)",
        ]
        if found.dropped:
            said.append(f"{found.dropped} biases and norms differ too, which a LoRA cannot hold")
        return said


def sdxl_student(network: object, form: str) -> UNetStudent:
    """The student, if it is of this family."""
    if isinstance(network, UNetStudent):
        return network
    raise UserError(
        f"export --to {form} writes students of the SDXL family, and this run's student is a "
        f"{type(network).__name__}"
    )


def _save(path: Path, tensors: dict[str, Tensor], shift: int, folder: str) -> None:
    """The file, and beside it the page that says how ComfyUI and diffusers run it; or neither."""
    metadata = {"format": "pt", SHIFT_KEY: str(shift)}
    with appearing(path) as temporary, appearing(path.with_suffix(".txt")) as page:
        write_tensors(temporary, tensors, metadata)
        page.write_text(shift_page(path.name, folder, shift), encoding="utf-8")

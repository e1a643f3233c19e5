"""The student of an SDXL-class run as a folder or a file that other software loads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillkit.atomic import appearing, write_tensors
from distillkit.configs import LEVELS
from distillkit.errors import UserError
from distillkit.exchange import SHIFT_KEY
from distillkit_diffusers.export.comfyui import FOLDERS, Kind, workflow
from distillkit_diffusers.export.lora_extraction import extract_lora
from distillkit_diffusers.io.loading import load_unet
from distillkit_diffusers.io.single_file import original_tensors
from distillkit_diffusers.sd3.loading import load_transformer
from distillkit_diffusers.sd3.student import SD3Student
from distillkit_diffusers.student import UNetStudent
from distillkit_diffusers.teacher import load_base_unet

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.contracts import StudentNetwork
    from distillkit_diffusers.choices import FileDType

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
PAGE = """\
{name}: timestep shift {shift}. Weights and shift belong together.

Noise levels, and the timesteps at which the UNet is run, by the number of steps; no guidance:
{grids}

ComfyUI: put the file into models/{folder}; {workflow} is a workflow in ComfyUI's API format. The
model goes through a timestep-shift node (custom node ComfyUI-TimestepShiftModel) with
shifted_timestep {shift}, then to a KSampler: sampler lcm, scheduler simple, 1, 2 or 4 steps, cfg 1.

diffusers: one step with the stock LCMScheduler: timesteps=[{one_step}], guidance_scale=0. For two
to four steps use the scheduler that `distillkit export RUN --to diffusers` writes into its folder.
"""


@dataclass
class FolderExporter:
    """Fulfils `distillkit.exchange.Exporter`: a pipeline folder of the student's family."""

    dtype: FileDType | None
    """None: the recipe's `publish_dtype`."""
    remote_code: bool = False
    """Whether our scheduler is the pipeline's own, for `trust_remote_code=True`."""
    suffix: str = ""

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        dtype = None if self.dtype is None else DTYPES[self.dtype]
        if isinstance(network, SD3Student):
            network.publish(path, timestep_shift, dtype)
            return ["a diffusers pipeline; its README.md shows how to draw in one to four steps"]
        student = require_unet_student(network, "diffusers")
        student.publish(path, timestep_shift, self.remote_code, dtype)
        return ["a diffusers pipeline; its README.md shows how to draw in one to four steps"]


@dataclass
class UNetExporter:
    """Fulfils `distillkit.exchange.Exporter`: one safetensors file with diffusers' names."""

    dtype: FileDType
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        student = require_unet_student(network, "unet")
        weights = student.unet(DTYPES[self.dtype]).state_dict()
        _save(path, weights, timestep_shift, "unet", student)
        return [f"the UNet alone, diffusers' names, {self.dtype}, shift {timestep_shift}"]


@dataclass
class SingleFileExporter:
    """Fulfils `distillkit.exchange.Exporter`: UNet, VAE and both text encoders in one file."""

    dtype: FileDType
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        student = require_unet_student(network, "single-file")
        pipe, dtype = student.teacher.pipe, DTYPES[self.dtype]
        tensors = original_tensors(pipe, student.unet(dtype), dtype)
        _save(path, tensors, timestep_shift, "checkpoint", student)
        notes = [f"a checkpoint in SDXL's original layout, {self.dtype}, shift {timestep_shift}"]
        widths = {e.config.hidden_size for e in (pipe.text_encoder, pipe.text_encoder_2)}
        if len(widths) == 1:
            notes.append(
                "diffusers' from_single_file can't read this file: it tells SDXL's two text "
                "encoders apart by their width, and this model's have the same"
            )
        return notes


@dataclass
class LoRAExporter:
    """Fulfils `distillkit.exchange.Exporter`: a low-rank part of student minus base."""

    dtype: FileDType
    rank: int
    base: str | None
    """None: the model that the teacher was loaded from."""
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        own, base, prefix = self._networks(network)
        dtype = DTYPES[self.dtype]
        lora = extract_lora(own.state_dict(), base.state_dict(), self.rank, dtype, prefix)
        if not lora.tensors:
            raise UserError(
                "export --to lora: the student's matrices equal its base's; train it first, or set "
                "another base: --set base=..."
            )
        if prefix is None:
            student = require_unet_student(network, "lora")
            _save(path, lora.tensors, timestep_shift, "lora", student)
        else:
            with appearing(path) as temporary:
                write_tensors(temporary, lora.tensors, {"format": "pt"})
        notes = [
            f"a LoRA of rank {self.rank}, {self.dtype}, shift {timestep_shift}",
            f"it keeps {lora.share:.2%} of the difference to its base (squared Frobenius norm)",
        ]
        if lora.dropped:
            notes.append(f"{lora.dropped} biases and norms differ too, which a LoRA cannot hold")
        return notes

    def _networks(self, network: object) -> tuple[Any, Any, str | None]:
        """The student's network, its base, and the prefix of a LoRA's names for diffusers."""
        if isinstance(network, SD3Student):
            sd3 = network.teacher
            source = self.base or sd3.source
            base = load_transformer(source, "base") if source else sd3.pipe.transformer
            return network.transformer(torch.float32), base, "transformer"
        student = require_unet_student(network, "lora")
        if self.base is None:
            base = load_base_unet(student.teacher)
        else:
            base = load_unet(self.base, student.teacher.pipe.unet, "base", torch.float32)
        return student.unet(torch.float32), base, None


def require_unet_student(network: object, exporter: str) -> UNetStudent:
    """The student, if it is of this family; else a `UserError` that names the exporter."""
    if isinstance(network, UNetStudent):
        return network
    raise UserError(
        f"export --to {exporter} writes students of the SDXL family, and this run's student is a "
        f"{type(network).__name__}"
    )


def _save(
    path: Path, tensors: dict[str, Tensor], shift: int, kind: Kind, student: UNetStudent
) -> None:
    """The file, and beside it a page on how ComfyUI and diffusers run it, and a workflow for
    ComfyUI; all or none."""
    metadata = {"format": "pt", SHIFT_KEY: str(shift)}
    text = PAGE.format(
        name=path.name,
        folder=FOLDERS[kind],
        workflow=path.with_suffix(".json").name,
        shift=shift,
        one_step=999 * shift // 1000,
        grids="\n".join(_grid(steps, shift) for steps in range(1, len(LEVELS) + 1)),
    )
    pipe = student.teacher.pipe
    height, width = (side * pipe.vae_scale_factor for side in student.teacher.latent_shape[1:])
    graph = json.dumps(workflow(kind, path.name, shift, height, width), indent=1) + "\n"
    with (
        appearing(path) as temporary,
        appearing(path.with_suffix(".txt")) as page,
        appearing(path.with_suffix(".json")) as nodes,
    ):
        write_tensors(temporary, tensors, metadata)
        page.write_text(text, encoding="utf-8")
        nodes.write_text(graph, encoding="utf-8")


def _grid(steps: int, shift: int) -> str:
    """`  2: noise 999, 499; UNet at 499, 249`."""
    levels = [int(LEVELS[i * len(LEVELS) // steps]) for i in range(steps)]
    noise, run = (", ".join(map(str, ts)) for ts in (levels, [t * shift // 1000 for t in levels]))
    return f"  {steps}: noise {noise}; UNet at {run}"

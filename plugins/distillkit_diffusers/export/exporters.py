"""The student of an SDXL-class run as a folder or a file that other software loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from distillkit.atomic import appearing, write_tensors
from distillkit.configs import LEVELS
from distillkit.errors import UserError
from distillkit.exchange import SHIFT_KEY
from distillkit_diffusers.export.comfyui import Kind, checkpoint_name, sd3_workflow, workflow
from distillkit_diffusers.export.lora_extraction import extract_lora, kohya_metadata, outside_blocks
from distillkit_diffusers.export.original_transformer import original_transformer
from distillkit_diffusers.export.pages import flow_page, sdxl_page, transformer_page
from distillkit_diffusers.flow.loading import load_transformer
from distillkit_diffusers.flow.student import FlowStudent
from distillkit_diffusers.io.hub import Asset
from distillkit_diffusers.io.loading import load_unet
from distillkit_diffusers.io.model_configs import local_path
from distillkit_diffusers.io.prediction import Prediction
from distillkit_diffusers.io.single_file import original_tensors
from distillkit_diffusers.sd3.family import SD3
from distillkit_diffusers.student import UNetStudent
from distillkit_diffusers.teacher import load_base_unet

if TYPE_CHECKING:
    from torch import Tensor

    from distillkit.contracts import StudentNetwork
    from distillkit_diffusers.choices import FileDType, LoRANames

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


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
        if isinstance(network, FlowStudent):
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
        tensors |= Prediction.of(pipe.scheduler.config).tensors()
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
class TransformerExporter:
    """Fulfils `distillkit.exchange.Exporter`: one safetensors file with the authors' names."""

    dtype: FileDType
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        if not isinstance(network, FlowStudent):
            raise UserError(
                "export --to transformer writes students that are transformers, and this run's is "
                f"a {type(network).__name__}: take --to unet"
            )
        own, family = network.transformer(DTYPES[self.dtype]).state_dict(), network.teacher.family
        page = transformer_page(
            network.teacher, path.name, network.levels, network.sampler == "renoise"
        )
        _write(path, original_transformer(own, family.original), {"format": "pt"}, page, None)
        return [f"the transformer alone, the names of {family.name}'s own files, {self.dtype}"]


@dataclass
class LoRAExporter:
    """Fulfils `distillkit.exchange.Exporter`: a low-rank part of student minus base."""

    dtype: FileDType
    rank: int
    base: str | None
    """None: the model that the teacher was loaded from."""
    names: LoRANames = "diffusers"
    suffix: str = ".safetensors"

    def export(self, network: StudentNetwork, timestep_shift: int, path: Path) -> Sequence[str]:
        own, base, names = self._networks(network)
        dtype = DTYPES[self.dtype]
        lora = extract_lora(own.state_dict(), base.state_dict(), self.rank, dtype, names)
        if not lora.tensors:
            raise UserError(
                "export --to lora: the student's matrices equal its base's; train it first, or set "
                "another base: --set base=..."
            )
        if isinstance(network, FlowStudent):
            _save_flow_lora(path, lora.tensors, network, self.base)
        else:
            student = require_unet_student(network, "lora")
            metadata = kohya_metadata(lora) if names == "kohya" else {}
            _save(path, lora.tensors, timestep_shift, "lora", student, metadata, self.base)
        notes = [
            f"a LoRA of rank {self.rank}, {self.dtype}, shift {timestep_shift}",
            f"it keeps {lora.share:.2%} of the difference to its base (squared Frobenius norm)",
        ]
        if lora.dropped:
            notes.append(f"{lora.dropped} biases and norms differ too, which a LoRA cannot hold")
        if names == "kohya" and (skipped := outside_blocks(lora)):
            notes.append(
                f"kohya's own tools leave out {len(skipped)} of its layers, which lie outside of "
                f"the blocks that they know: {', '.join(skipped)}; ComfyUI and diffusers take all"
            )
        return notes

    def _networks(self, network: object) -> tuple[Any, Any, LoRANames | Literal["transformer"]]:
        """The student's network, its base, and which names the LoRA's layers get."""
        if isinstance(network, FlowStudent):
            flow = network.teacher
            source, base = self.base or flow.source, None
            if source:
                asset = Asset("base", source, "pipeline", None, flow.family.pipeline)
                base = load_transformer(flow.family, asset)
            own = network.transformer(torch.float32)
            return own, base or flow.full_precision(), "transformer"
        student = require_unet_student(network, "lora")
        if self.base is None:
            base = load_base_unet(student.teacher)
        else:
            base = load_unet(self.base, student.teacher.pipe.unet, "base", torch.float32)
        return student.unet(torch.float32), base, self.names


def require_unet_student(network: object, exporter: str) -> UNetStudent:
    """The student, if it is of this family; else a `UserError` that names the exporter."""
    if isinstance(network, UNetStudent):
        return network
    raise UserError(
        f"export --to {exporter} writes students of the SDXL family, and this run's student is a "
        f"{type(network).__name__}"
    )


def _save(
    path: Path,
    tensors: Mapping[str, Tensor],
    shift: int,
    kind: Kind,
    student: UNetStudent,
    metadata: Mapping[str, str] | None = None,
    base: str | None = None,
) -> None:
    """The file, and beside it a page on how diffusers and ComfyUI run it, and a workflow for
    ComfyUI; all or none. `base`: of a LoRA, what it is added to where that is not the teacher's
    model."""
    pipe = student.teacher.pipe
    prediction = Prediction.of(pipe.scheduler.config)
    # SDXL base can stand for a relative of the same prediction, and for no other.
    model = None if prediction.is_usual else _whole_model(base) or student.teacher.model
    checkpoint = None if model is None else checkpoint_name(model)
    height, width = (side * pipe.vae_scale_factor for side in student.teacher.latent_shape[1:])
    graph = workflow(kind, path.name, shift, height, width, prediction, checkpoint)
    page = sdxl_page(kind, path.name, path.with_suffix(".json").name, shift, prediction, model)
    stated = {"format": "pt", SHIFT_KEY: str(shift)} | dict(metadata or {})
    _write(path, tensors, stated | prediction.metadata(), page, graph)


def _whole_model(base: str | None) -> str | None:
    """The base, where it is a pipeline here and not a UNet alone."""
    there = base is not None and (local_path(base) / "model_index.json").is_file()
    return base if there else None


def _save_flow_lora(
    path: Path, tensors: Mapping[str, Tensor], student: FlowStudent, base: str | None
) -> None:
    """The same for a LoRA of a transformer; a workflow for the SD3 family alone, and none where
    ComfyUI's schedulers have other noise levels than the student."""
    teacher, stochastic = student.teacher, student.sampler == "renoise"
    graph = None
    if tuple(student.levels) == LEVELS and teacher.family == SD3:
        sampler = "lcm" if stochastic else "euler"
        t5 = "text_encoder_3" not in teacher.parts_left_out()
        graph = sd3_workflow(path.name, teacher.shift, sampler, *teacher.image_size, t5=t5)
    beside = None if graph is None else path.with_suffix(".json").name
    page = flow_page(teacher, path.name, beside, student.levels, stochastic, base)
    _write(path, tensors, {"format": "pt"}, page, graph)


def _write(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    page: str,
    graph: Mapping[str, Any] | None,
) -> None:
    with (
        appearing(path) as temporary,
        appearing(path.with_suffix(".md")) as text,
        appearing(path.with_suffix(".json")) if graph is not None else nullcontext() as nodes,
    ):
        write_tensors(temporary, dict(tensors), dict(metadata))
        text.write_text(page, encoding="utf-8")
        if nodes is not None:
            nodes.write_text(json.dumps(graph, indent=1) + "\n", encoding="utf-8")

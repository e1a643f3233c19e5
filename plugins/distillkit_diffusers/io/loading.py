"""Files -> a StableDiffusionXLPipeline, or a UNet."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillkit.errors import UserError
from distillkit.exchange import shift_of_file
from distillkit_diffusers.common.lora import fuse_into_network, fuse_into_pipeline
from distillkit_diffusers.common.quantized import plain_copy
from distillkit_diffusers.io.folders import (
    flaws_of,
    missing_variant,
    short_vocabulary,
    why_not_loaded,
    without_betas,
)
from distillkit_diffusers.io.hub import Asset, first_line, locate, teacher_assets
from distillkit_diffusers.io.single_file import load_single_file
from distillkit_diffusers.io.tensor_names import what_is
from distillkit_diffusers.io.weights import keys_of, replace_weights

if TYPE_CHECKING:
    from distillkit_diffusers.common.low_rank import Change
    from distillkit_diffusers.teacher import SDXLTeacher


def load_pipeline(
    model: str,
    dtype: torch.dtype,
    *,
    variant: str | None = None,
    unet: str | None = None,
    lora: str | None = None,
    lora_strength: float = 1.0,
    vae: str | None = None,
    config: str | None = None,
) -> tuple[Any, Path]:
    """The pipeline with its replacements, and the path of `model`; arguments as in
    `SDXLTeacherConfig`.

    Raises `UserError` for files that are missing or of the wrong kind.
    """
    assets = teacher_assets(model, variant, unet=unet, lora=lora, vae=vae, config=config)
    paths = {asset.field: path for asset, path in zip(assets, locate(assets), strict=True)}
    path = paths["teacher.model"]
    with no_progress_bars():
        if path.is_file():
            configs = paths.get("teacher.config")
            pipe = load_single_file(path, configs, dtype)
            _check_parts(pipe, configs or path, "teacher.config" if configs else "teacher.model")
        else:
            pipe = _load_folder(assets[0], path, dtype)
            _check_parts(pipe, path, "teacher.model")
        if vae:
            pipe.register_modules(vae=_load_vae(paths["teacher.vae"], dtype))
        if unet:
            replace_weights(pipe.unet, paths["teacher.unet"], "teacher.unet")
        if lora:
            fuse_into_pipeline(pipe, paths["teacher.lora"], lora_strength, "teacher.lora")
    return pipe, path


def load_unet(spec: str, like: Any, field: str, dtype: Any, variant: str | None = None) -> Any:
    """A UNet from a file, with the architecture of `like`, or from a folder.

    In `dtype` of torch, on the CPU. The folder is a UNet's or a whole pipeline's.
    """
    [path] = locate([Asset(field, spec, "file")])
    if path.is_file():
        unet = plain_copy(like).to("cpu", dtype)
        replace_weights(unet, path, field)
        return unet
    from diffusers import UNet2DConditionModel

    folder = path / "unet" if (path / "unet").is_dir() else path
    try:
        with no_progress_bars():
            return UNet2DConditionModel.from_pretrained(
                folder, dtype=dtype, variant=variant, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{field}: no UNet can be read from {folder}: {first_line(error)}"
        ) from error


def load_start(spec: str, teacher: SDXLTeacher, shift: int) -> Any:
    """The UNet that a student starts from, in float32: its own weights, or a LoRA fused into the
    teacher's.

    Raises `UserError` where the file states another timestep shift.
    """
    [path] = locate([Asset("student.start", spec, "file")])
    _check_shift(path, shift)
    if path.suffix == ".safetensors" and what_is(keys_of(path, "student.start")) == "a LoRA":
        unet = copy.deepcopy(teacher.full_precision()).to("cpu", torch.float32)
        fuse_into_network(unet, path, "student.start", _load_adapter)
        return unet
    return load_unet(str(path), teacher.pipe.unet, "student.start", torch.float32)


def _check_shift(path: Path, shift: int) -> None:
    stated = shift_of_file(path)
    if stated is not None and stated != shift:
        raise UserError(
            f"student.start: {path} states timestep shift {stated}, but the recipe says {shift}; "
            f"weights and shift belong together: --set student.timestep_shift={stated}"
        )


def load_change(terms: Sequence[str], like: Any, shift: int) -> Change:
    """The difference of two UNets of the architecture of `like`, for a student's start; the first
    may state the timestep shift, as in `load_start`."""
    _check_shift(locate([Asset("student.start", terms[0], "file")])[0], shift)
    weights = [load_unet(t, like, "student.start", torch.float32).state_dict() for t in terms]
    return lambda name: weights[0][name] - weights[1][name]


def _load_adapter(path: Path, unet: Any) -> None:
    from diffusers import StableDiffusionXLPipeline as Pipeline

    state, alphas = Pipeline.lora_state_dict(
        str(path.parent), weight_name=path.name, unet_config=unet.config
    )
    Pipeline.load_lora_into_unet(state, alphas, unet)


def _load_folder(asset: Asset, folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import StableDiffusionXLPipeline

    for flaw in flaws_of(folder):
        raise UserError(f"{asset.field}: {flaw}")
    if said := missing_variant(folder, asset.variant):
        raise UserError(f"{asset.field.partition('.')[0]}.variant: {said}")
    try:
        return StableDiffusionXLPipeline.from_pretrained(
            folder,
            dtype=dtype,
            variant=asset.variant,
            local_files_only=True,
            add_watermarker=False,
            trust_remote_code=_code_is_ours(folder),
        )
    except (OSError, ValueError, RuntimeError) as error:
        why = why_not_loaded(folder, asset.files, first_line(error))
        raise UserError(f"{asset.field}: {why}") from error


def _check_parts(pipe: Any, folder: Path, field: str) -> None:
    """Raises `UserError` for a scheduler or tokenizers that no teacher can use."""
    if flaw := short_vocabulary(pipe.components, folder):
        raise UserError(f"{field}: {flaw}")
    if not hasattr(pipe.scheduler, "alphas_cumprod"):
        raise UserError(f"{field}: {folder}'s {without_betas(type(pipe.scheduler).__name__)}")


def _code_is_ours(folder: Path) -> bool:
    """Whether all code in a published folder is ours, byte for byte: no other is ever run."""
    ours = Path(__file__).with_name("timestep_shift_lcm.py")
    code = list(folder.rglob("*.py"))
    return bool(code) and all(
        file.name == ours.name and file.read_bytes() == ours.read_bytes() for file in code
    )


def _load_vae(folder: Path, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(folder, dtype=dtype, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"teacher.vae: no AutoencoderKL can be read from {folder}: {first_line(error)}"
        ) from error


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Inside, diffusers and transformers show no progress bars: a run has its own."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries = (diffusers_logging, transformers_logging)
    enabled = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in enabled:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in enabled:
            library.enable_progress_bar()

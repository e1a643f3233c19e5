"""Files -> a teacher, or a UNet."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillkit.errors import UserError
from distillkit.exchange import shift_of_file
from distillkit_diffusers.assets import Asset, first_line, locate
from distillkit_diffusers.layout import what_is
from distillkit_diffusers.single_file import load_single_file
from distillkit_diffusers.teacher import SDXLTeacher
from distillkit_diffusers.usage import Usage
from distillkit_diffusers.weights import keys_of, put_weights

if TYPE_CHECKING:
    from distillkit_diffusers.words import DType

AS_IT_IS = Usage()


def load_teacher(
    model: str | Path,
    usage: Usage = AS_IT_IS,
    *,
    dtype: DType = "float32",
    variant: str | None = None,
    unet: str | None = None,
    lora: str | None = None,
    lora_strength: float = 1.0,
    vae: str | None = None,
    config: str | None = None,
) -> SDXLTeacher:
    """A teacher from a folder, a single file or a hub id; arguments as in `SDXLTeacherConfig`.

    For a teacher that ships with a plugin, `load_teacher(FOLDER, Usage(steps=...))` is all.
    Raises `UserError` for files that are missing or are not what they should be.
    """
    single = str(model).endswith((".safetensors", ".ckpt"))
    assets = [Asset("teacher.model", str(model), "file" if single else "pipeline", variant)]
    assets += [Asset("teacher.config", config, "pipeline")] if config else []
    assets += [Asset("teacher.vae", vae, "vae")] if vae else []
    assets += [Asset("teacher.unet", unet, "file")] if unet else []
    assets += [Asset("teacher.lora", lora, "file")] if lora else []
    paths = {asset.field: path for asset, path in zip(assets, locate(assets), strict=True)}
    with quiet():
        pipe = _load_pipeline(assets[0], paths["teacher.model"], dtype, paths.get("teacher.config"))
        if vae:
            pipe.register_modules(vae=_load_vae(paths["teacher.vae"], dtype))
        if unet:
            put_weights(pipe.unet, paths["teacher.unet"], "teacher.unet")
        if lora:
            _fuse_lora(pipe, paths["teacher.lora"], lora_strength)
    return usage.teacher(pipe, str(paths["teacher.model"]) if unet or lora else None, variant)


def sdxl_teacher(teacher: object, who: str) -> SDXLTeacher:
    """The teacher, if it is of this family; `who` needs it."""
    if isinstance(teacher, SDXLTeacher):
        return teacher
    raise UserError(
        f"{who} works on a teacher of the SDXL family (sdxl, shapes), and this recipe's teacher is "
        f"a {type(teacher).__name__}"
    )


def base_unet(teacher: SDXLTeacher) -> Any:
    """The UNet of the model that the teacher was loaded from, before LoRA or other UNet."""
    unet = teacher.pipe.unet
    if teacher.source is None:
        return unet
    return load_unet(teacher.source, unet, "teacher.model", torch.float32, teacher.variant)


def load_unet(spec: str, like: Any, field: str, dtype: Any, variant: str | None = None) -> Any:
    """A UNet of its own weights: a file for the architecture of `like`, or a folder.

    In `dtype` of torch, on the CPU. Folders are a UNet's or a whole pipeline's.
    """
    [path] = locate([Asset(field, spec, "file")])
    if path.is_file():
        unet = copy.deepcopy(like).to("cpu", dtype)
        put_weights(unet, path, field)
        return unet
    from diffusers import UNet2DConditionModel

    folder = path / "unet" if (path / "unet").is_dir() else path
    try:
        with quiet():
            return UNet2DConditionModel.from_pretrained(
                folder, dtype=dtype, variant=variant, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{field}: no UNet can be read from {folder}: {first_line(error)}"
        ) from error


def load_start(spec: str, like: Any, shift: int) -> Any:
    """The UNet that a student starts from, in float32: weights of its own, or a LoRA on `like`'s.

    Raises `UserError` where the file says that it goes with another timestep shift.
    """
    [path] = locate([Asset("student.start", spec, "file")])
    said = shift_of_file(path)
    if said is not None and said != shift:
        raise UserError(
            f"student.start: {path} goes with timestep shift {said} and the recipe says {shift}; "
            f"weights and shift belong together: --set student.timestep_shift={said}"
        )
    if path.suffix == ".safetensors" and what_is(keys_of(path, "student.start")) == "a LoRA":
        unet = copy.deepcopy(like).to("cpu", torch.float32)
        _fuse_into(unet, path)
        return unet
    return load_unet(str(path), like, "student.start", torch.float32)


def _fuse_into(unet: Any, path: Path) -> None:
    """Add a LoRA's weights to a UNet's."""
    from diffusers import StableDiffusionXLPipeline as Pipeline

    _need_peft("student.start")
    try:
        state, alphas = Pipeline.lora_state_dict(
            str(path.parent), weight_name=path.name, unet_config=unet.config
        )
        Pipeline.load_lora_into_unet(state, alphas, unet)
    except Exception as error:  # diffusers and peft raise many kinds for what does not fit
        raise UserError(
            f"student.start: {path} is no LoRA for this model: {first_line(error)}"
        ) from error
    unet.fuse_lora()
    unet.unload_lora()


def _need_peft(field: str) -> None:
    from diffusers.utils import is_peft_available

    if not is_peft_available():
        raise UserError(f"{field}: LoRAs need peft; install it with pip install 'peft>=0.17'")


def _load_pipeline(asset: Asset, folder: Path, dtype: DType, config: Path | None) -> Any:
    from diffusers import StableDiffusionXLPipeline

    if folder.is_file():
        return load_single_file(folder, config, getattr(torch, dtype))
    index = folder / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{asset.field}: {folder} is no diffusers pipeline folder: it has no model_index.json. "
            "A checkpoint in one file is named by the file itself"
        )
    kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    if kind != "StableDiffusionXLPipeline":
        raise UserError(
            f"{asset.field}: {folder} is a {kind}, and a StableDiffusionXLPipeline is needed"
        )
    try:
        return StableDiffusionXLPipeline.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            variant=asset.variant,
            local_files_only=True,
            add_watermarker=False,
            trust_remote_code=_holds_our_scheduler(folder),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{asset.field}: {folder} is not complete: {first_line(error)}. It needs "
            f"{', '.join(asset.files)}"
        ) from error


def _holds_our_scheduler(folder: Path) -> bool:
    """Whether all code in a published folder is ours, byte for byte: no other is ever run."""
    ours = Path(__file__).with_name("timestep_shift_lcm.py")
    code = list(folder.rglob("*.py"))
    return bool(code) and all(
        file.name == ours.name and file.read_bytes() == ours.read_bytes() for file in code
    )


def _load_vae(folder: Path, dtype: DType) -> Any:
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"teacher.vae: no AutoencoderKL can be read from {folder}: {first_line(error)}"
        ) from error


def _fuse_lora(pipe: Any, path: Path, strength: float) -> None:
    """Add the LoRA's weights to the pipeline's, and leave no adapter behind."""
    _need_peft("teacher.lora")
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    except Exception as error:  # diffusers and peft raise many kinds for what does not fit
        raise UserError(
            f"teacher.lora: {path} is no LoRA for this model: {first_line(error)}"
        ) from error
    if not pipe.get_list_adapters():
        raise UserError(f"teacher.lora: {path} has no weights for this model")
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars: a run has one of its own."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    shown = [of for of in (of_diffusers, of_transformers) if of.is_progress_bar_enabled()]
    for of in shown:
        of.disable_progress_bar()
    try:
        yield
    finally:
        for of in shown:
            of.enable_progress_bar()

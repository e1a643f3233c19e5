"""Single-file checkpoints in SDXL's original layout: read by diffusers, written here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillkit.errors import UserError
from distillkit_diffusers.io.folders import flaws_of
from distillkit_diffusers.io.hub import first_line
from distillkit_diffusers.io.prediction import Prediction
from distillkit_diffusers.io.sdxl_files import SDXL_FILES, tokenizers
from distillkit_diffusers.io.tensor_names import (
    UNET,
    old_clip_name,
    open_clip_name,
    unet_names,
    vae_names,
    what_is,
)
from distillkit_diffusers.io.weights import keys_of, metadata_of

if TYPE_CHECKING:
    from torch import Tensor

VAE = "first_stage_model."
CLIP = "conditioner.embedders.0.transformer."
OPEN_CLIP = "conditioner.embedders.1.model."


def original_tensors(pipe: Any, unet: Any, dtype: Any) -> dict[str, Tensor]:
    """Every network of `pipe`, with `unet` for its own, in `dtype` on the CPU."""
    clip = {old_clip_name(name): w for name, w in pipe.text_encoder.state_dict().items()}
    tensors = {UNET + name: w for name, w in _unet(unet.state_dict()).items()}
    tensors |= {VAE + name: w for name, w in _vae(pipe.vae.state_dict()).items()}
    tensors |= {CLIP + name: w for name, w in clip.items()}
    tensors |= {OPEN_CLIP + n: w for n, w in _open_clip(pipe.text_encoder_2.state_dict()).items()}
    return {
        name: w.detach().to("cpu", dtype if w.is_floating_point() else None).contiguous()
        for name, w in tensors.items()
    }


def _unet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    names = unet_names(weights)
    return {names[name]: w for name, w in weights.items()}


def _vae(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The attention's linear maps are 1x1 convolutions in the original."""
    names = vae_names(weights)
    return {
        names[name]: w[:, :, None, None] if ".attentions." in name and w.ndim == 2 else w
        for name, w in weights.items()
    }


def _open_clip(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """q, k, v are one matrix in the original, and the text projection is transposed."""
    tensors: dict[str, Tensor] = {}
    for name, w in weights.items():
        if ".q_proj." in name:
            qkv = [weights[name.replace(".q_proj.", f".{x}_proj.")] for x in "qkv"]
            tensors[open_clip_name(name).replace(".q_proj.", ".in_proj_")] = torch.cat(qkv)
        elif ".k_proj." not in name and ".v_proj." not in name:
            tensors[open_clip_name(name)] = w.T if name == "text_projection.weight" else w
    return tensors


def load_single_file(path: Path, config: Path | None, dtype: Any) -> Any:
    """A StableDiffusionXLPipeline from a checkpoint in one file.

    `config`: a pipeline folder with its configs and tokenizers; None takes SDXL's. What the file
    itself says of its prediction goes before the config. Raises `UserError` for anything but a
    whole SDXL checkpoint, and for a config that is none.
    """
    from diffusers import StableDiffusionXLPipeline

    keys = keys_of(path, "teacher.model")
    parts = {"the UNet": UNET, "the VAE": VAE, "CLIP-L": CLIP, "OpenCLIP-G": OPEN_CLIP}
    missing = [name for name, start in parts.items() if not any(k.startswith(start) for k in keys)]
    if missing:
        raise UserError(
            f"teacher.model: {path} is {what_is(keys)}: a whole SDXL checkpoint is needed, and it "
            f"lacks {', '.join(missing)}. A UNet alone goes into teacher.unet"
        )
    for flaw in flaws_of(config) if config else ():
        raise UserError(f"teacher.config: {flaw}")
    shipped = tokenizers() if config is None else {}
    try:
        pipe = StableDiffusionXLPipeline.from_single_file(
            str(path),
            config=str(config or SDXL_FILES),
            local_files_only=True,
            dtype=dtype,
            add_watermarker=False,
            **shipped,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(
            f"teacher.model: {path} cannot be loaded as SDXL: {first_line(error).rstrip('.')}. A "
            "model of other sizes is opened as the folder that it was made from, with this file "
            f"for its weights: `distillkit sample FOLDER ... --weights {path}`; in a recipe "
            "`teacher.config` names that folder"
        ) from error
    if stated := Prediction.stated(keys, metadata_of(path)):
        _predict(pipe, stated)
    return pipe


def _predict(pipe: Any, stated: Prediction) -> None:
    """Give the pipeline a scheduler of what the file states; its betas are its config's own."""
    from diffusers import EulerDiscreteScheduler

    config = pipe.scheduler.config
    stated = replace(stated, zero_snr=stated.zero_snr or Prediction.of(config).zero_snr)
    pipe.register_modules(scheduler=EulerDiscreteScheduler.from_config(config, **stated.options))

"""A teacher of the right sizes without weights, for plans and benchmarks.

A folder here says its sizes itself. What is not here, a file or a hub id, is taken for Stable
Diffusion XL base 1.0, whose configs ship in `sdxl/`: presets and fine-tunes have its sizes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillkit_diffusers.sdxl_files import SDXL_FILES, tokenizers
from distillkit_diffusers.student import convert

if TYPE_CHECKING:
    from distillkit_diffusers.teacher import SDXLTeacher
    from distillkit_diffusers.usage import Usage
    from distillkit_diffusers.words import DType


def outline_teacher(
    model: str | Path,
    usage: Usage,
    *,
    dtype: DType = "float32",
    config: str | None = None,
    vae: str | None = None,
    device: str = "meta",
) -> SDXLTeacher:
    """As `load_teacher` with the same arguments, but of random weights, or on meta of none.

    `device`: where the networks are made; on the meta device they have shapes and no data.
    """
    folder = folder_of_sizes(model, config)
    pipe = _pipeline(folder, getattr(torch, dtype), device)
    if vae and (Path(vae) / "config.json").is_file():
        pipe.register_modules(vae=_network("vae", Path(vae), pipe.vae.dtype, device))
    return usage.teacher(pipe)


def folder_of_sizes(model: str | Path, config: str | None = None) -> Path:
    """The pipeline folder whose configs say how large `model` is."""
    for named in (model, config):
        folder = Path(named).expanduser() if named else None
        if folder is not None and (folder / "unet" / "config.json").is_file():
            return folder
    return SDXL_FILES


def _pipeline(folder: Path, dtype: Any, device: str) -> Any:
    import diffusers

    kinds = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    parts = {name: _network(name, folder / name, dtype, device) for name in names}
    scheduler = getattr(diffusers, kinds["scheduler"][1]).from_pretrained(folder / "scheduler")
    return diffusers.StableDiffusionXLPipeline(
        **parts, **_words(folder), scheduler=scheduler, add_watermarker=False
    )


def _network(name: str, folder: Path, dtype: Any, device: str) -> Any:
    import diffusers
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with torch.device(device):
        if name == "unet":
            made = diffusers.UNet2DConditionModel.from_config(config)
        elif name == "vae":
            made = diffusers.AutoencoderKL.from_config(config)
        else:
            kinds = {
                "text_encoder": transformers.CLIPTextModel,
                "text_encoder_2": transformers.CLIPTextModelWithProjection,
            }
            made = kinds[name](transformers.CLIPTextConfig(**config))
    return convert(made, dtype)


def _words(folder: Path) -> dict[str, Any]:
    from transformers import CLIPTokenizer

    if folder == SDXL_FILES:
        return tokenizers()
    names = ("tokenizer", "tokenizer_2")
    return {name: CLIPTokenizer.from_pretrained(folder / name) for name in names}

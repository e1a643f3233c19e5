"""A teacher of the true sizes without weights, for memory plans and benchmarks.

Sizes come from the configs of a folder. A model that is no folder here (a file, or a hub id) is
taken to have the sizes of Stable Diffusion XL base 1.0, as presets and fine-tunes do.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distillkit_diffusers.io.model_configs import folder_of_configs
from distillkit_diffusers.io.sdxl_files import SDXL_FILES, tokenizers
from distillkit_diffusers.io.weights import convert
from distillkit_diffusers.teacher import SDXLTeacher

if TYPE_CHECKING:
    from distillkit_diffusers.choices import DType
    from distillkit_diffusers.teacher_options import TeacherOptions


def meta_teacher(
    model: str | Path,
    options: TeacherOptions,
    *,
    dtype: DType = "float32",
    config: str | None = None,
    vae: str | None = None,
    device: str = "meta",
) -> SDXLTeacher:
    """`load_teacher` of the same arguments, but without weights.

    `device`: where the networks are made; on torch's meta device tensors have shapes and no data,
    on any other one random weights.
    """
    folder = folder_of_configs(model, config)
    pipe = _pipeline(folder, getattr(torch, dtype), device)
    if vae and (Path(vae) / "config.json").is_file():
        pipe.register_modules(vae=_network("vae", Path(vae), pipe.vae.dtype, device))
    return SDXLTeacher(pipe, options)


def _pipeline(folder: Path, dtype: Any, device: str) -> Any:
    import diffusers

    classes = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    networks = {name: _network(name, folder / name, dtype, device) for name in names}
    scheduler = getattr(diffusers, classes["scheduler"][1]).from_pretrained(folder / "scheduler")
    return diffusers.StableDiffusionXLPipeline(
        **networks,
        **_tokenizers(folder),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=classes.get("force_zeros_for_empty_prompt", True),
        add_watermarker=False,
    )


def _network(name: str, folder: Path, dtype: Any, device: str) -> Any:
    import diffusers
    import transformers

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with torch.device(device):
        if name == "unet":
            network = diffusers.UNet2DConditionModel.from_config(config)
        elif name == "vae":
            network = diffusers.AutoencoderKL.from_config(config)
        else:
            classes = {
                "text_encoder": transformers.CLIPTextModel,
                "text_encoder_2": transformers.CLIPTextModelWithProjection,
            }
            network = classes[name](transformers.CLIPTextConfig(**config))
    return convert(network, dtype)


def _tokenizers(folder: Path) -> dict[str, Any]:
    from transformers import CLIPTokenizer

    if folder == SDXL_FILES:
        return tokenizers()
    names = ("tokenizer", "tokenizer_2")
    return {name: CLIPTokenizer.from_pretrained(folder / name) for name in names}

"""Files -> a StableDiffusion3Pipeline; and one of the true sizes without weights, for plans."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from distillkit.errors import UserError
from distillkit_diffusers.io.hub import Asset, first_line, locate
from distillkit_diffusers.io.loading import no_progress_bars
from distillkit_diffusers.io.tensor_names import what_is
from distillkit_diffusers.io.weights import convert, read_weights
from distillkit_diffusers.sd3.sizes import PIPELINE, configs_of, teacher_assets


def load_pipeline(
    model: str,
    dtype: torch.dtype,
    *,
    variant: str | None = None,
    transformer: str | None = None,
    lora: str | None = None,
    lora_strength: float = 1.0,
    t5: bool = True,
) -> Any:
    """The pipeline with its replacements; arguments as in `SD3TeacherConfig`.

    Raises `UserError` for files that are missing or of the wrong kind.
    """
    assets = teacher_assets(model, variant, transformer, lora)
    paths = {asset.field: path for asset, path in zip(assets, locate(assets), strict=True)}
    with no_progress_bars():
        pipe = _load_folder(assets[0], paths["teacher.model"], dtype, t5)
        if transformer:
            replace_weights(pipe.transformer, paths["teacher.transformer"], "teacher.transformer")
        if lora:
            _fuse_lora(pipe, paths["teacher.lora"], lora_strength)
    return pipe


def _load_folder(asset: Asset, folder: Path, dtype: torch.dtype, t5: bool) -> Any:
    from diffusers import StableDiffusion3Pipeline

    if folder.is_file():
        raise UserError(
            f"{asset.field}: {folder} is one file, and has not all text encoders of the family; "
            f"name a {PIPELINE} folder, and set teacher.transformer to this file"
        )
    index = folder / "model_index.json"
    found = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    if found.get("_class_name") != PIPELINE:
        what = found.get("_class_name", "no diffusers pipeline folder")
        raise UserError(f"{asset.field}: {folder} is {what}, and a {PIPELINE} is needed")
    # diffusers wants to be told that there is no T5, even where the folder has none.
    t5 = t5 and found.get("text_encoder_3", [None])[0] is not None
    without: dict[str, Any] = {} if t5 else {"text_encoder_3": None, "tokenizer_3": None}
    try:
        return StableDiffusion3Pipeline.from_pretrained(
            folder, dtype=dtype, variant=asset.variant, local_files_only=True, **without
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{asset.field}: {folder} is incomplete: {first_line(error)}") from error


def load_transformer(spec: str, field: str) -> Any:
    """A transformer from its folder or a pipeline's, in float32. Raises `UserError`."""
    from diffusers import SD3Transformer2DModel

    [path] = locate([Asset(field, spec, "pipeline", None, PIPELINE)])
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    try:
        with no_progress_bars():
            return SD3Transformer2DModel.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{field}: no transformer can be read from {folder}: {first_line(error)}"
        ) from error


def replace_weights(network: Any, path: Path, field: str) -> None:
    """Replace the transformer's weights by the file's, which has diffusers' names.

    `field`: of the recipe, for errors. Raises `UserError` where the file holds another network.
    """
    weights = read_weights(path, field)
    own = {name: tuple(w.shape) for name, w in network.state_dict().items()}
    found = {name: tuple(w.shape) for name, w in weights.items()}
    if own.keys() != found.keys():
        raise UserError(
            f"{field}: {path} does not hold this model's transformer: it is {what_is(found)}, and "
            f"{len(own.keys() - found.keys())} of {len(own)} tensors are missing"
        )
    if differing := [name for name in own if own[name] != found[name]]:
        name = differing[0]
        raise UserError(
            f"{field}: {path} is a transformer of another size: {name} is {found[name]} and "
            f"should be {own[name]}"
        )
    network.load_state_dict(weights)


def fuse_into(network: Any, path: Path, field: str) -> None:
    """Add a LoRA's weights to a transformer's."""
    from diffusers import StableDiffusion3Pipeline as Pipeline

    try:
        state = Pipeline.lora_state_dict(str(path.parent), weight_name=path.name)
        state = state[0] if isinstance(state, tuple) else state
        Pipeline.load_lora_into_transformer(state, network)
    except Exception as error:  # diffusers and peft raise many types for a LoRA of another model
        raise UserError(
            f"{field}: {path} is not a LoRA for this model: {first_line(error)}"
        ) from error
    if not getattr(network, "peft_config", None):
        raise UserError(f"{field}: {path} has no weights for this model")
    network.fuse_lora()
    network.unload_lora()


def _fuse_lora(pipe: Any, path: Path, strength: float) -> None:
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    except Exception as error:  # diffusers and peft raise many types for a LoRA of another model
        raise UserError(
            f"teacher.lora: {path} is not a LoRA for this model: {first_line(error)}"
        ) from error
    if not pipe.get_list_adapters():
        raise UserError(f"teacher.lora: {path} has no weights for this model")
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()


def meta_pipeline(model: str | Path, dtype: torch.dtype, t5: bool, device: str) -> Any:
    """A pipeline of the folder's sizes, or of SD3.5 medium's, without weights."""
    import diffusers
    import transformers

    configs = configs_of(model)
    with torch.device(device):
        networks = {
            "transformer": diffusers.SD3Transformer2DModel.from_config(configs["transformer"]),
            "vae": diffusers.AutoencoderKL.from_config(configs["vae"]),
        }
        for name in ("text_encoder", "text_encoder_2"):
            clip = transformers.CLIPTextConfig(**configs[name])
            networks[name] = transformers.CLIPTextModelWithProjection(clip)
        if t5 and "text_encoder_3" in configs:
            config = transformers.T5Config(**configs["text_encoder_3"])
            networks["text_encoder_3"] = transformers.T5EncoderModel(config)
    networks = {name: convert(network, dtype) for name, network in networks.items()}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(configs["scheduler"])
    names = ("text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3")
    pipe = diffusers.StableDiffusion3Pipeline(
        **{**dict.fromkeys(names), **networks}, scheduler=scheduler
    )
    length = int(configs["text_encoder"].get("max_position_embeddings", 77))
    pipe.tokenizer_max_length = length
    for name in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        setattr(pipe, name, BlankTokenizer(length))
    return pipe


class BlankTokenizer:
    """Texts of no tokens, padded: networks without weights see their number alone."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, texts: list[str], max_length: int | None = None, **_: Any) -> Any:
        """`input_ids` (B, L) of zeros."""
        length = max_length or self.model_max_length
        return SimpleNamespace(input_ids=torch.zeros(len(texts), length, dtype=torch.long))

    def batch_decode(self, ids: Any) -> list[str]:
        """Nothing was cut off."""
        return []

"""Files -> a pipeline with a transformer; and one of the true sizes without weights, for plans."""

from __future__ import annotations

import copy
from collections.abc import Collection
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from distillkit.errors import UserError
from distillkit_diffusers.common.lora import fuse_into_network, fuse_into_pipeline
from distillkit_diffusers.io.hub import Asset, first_line, locate
from distillkit_diffusers.io.loading import no_progress_bars
from distillkit_diffusers.io.tensor_names import what_is
from distillkit_diffusers.io.weights import convert, keys_of, read_weights

if TYPE_CHECKING:
    from distillkit_diffusers.flow.family import Family
    from distillkit_diffusers.flow.teacher import FlowTeacher


def load_pipeline(
    family: Family,
    model: str,
    dtype: torch.dtype,
    *,
    variant: str | None = None,
    transformer: str | None = None,
    lora: str | None = None,
    lora_strength: float = 1.0,
    left_out: Collection[str] = (),
) -> Any:
    """The pipeline with its replacements; arguments as in `FlowTeacherConfig`. `left_out`: parts
    that are not loaded.

    Raises `UserError` for files that are missing or of the wrong kind.
    """
    assets = family.assets(model, variant, transformer, lora)
    paths = {asset.field: path for asset, path in zip(assets, locate(assets), strict=True)}
    with no_progress_bars():
        pipe = _load_folder(family, paths["teacher.model"], dtype, variant, left_out)
        if transformer:
            replace_weights(pipe.transformer, paths["teacher.transformer"], "teacher.transformer")
        if lora:
            fuse_into_pipeline(pipe, paths["teacher.lora"], lora_strength, "teacher.lora")
    return pipe


def _load_folder(
    family: Family, folder: Path, dtype: torch.dtype, variant: str | None, left_out: Collection[str]
) -> Any:
    import diffusers

    if flaw := family.flaw_of(folder, left_out):
        raise UserError(f"teacher.model: {flaw}")
    # diffusers wants to be told which parts there are not, even where the folder says so.
    without = dict.fromkeys((*left_out, *family.absent(folder)))
    try:
        return getattr(diffusers, family.pipeline).from_pretrained(
            folder, dtype=dtype, variant=variant, local_files_only=True, **without
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"teacher.model: {folder} is incomplete: {first_line(error)}") from error


def load_transformer(family: Family, spec: str, field: str) -> Any:
    """A transformer from its folder or a pipeline's, in float32. Raises `UserError`."""
    import diffusers

    [path] = locate([Asset(field, spec, "pipeline", None, family.pipeline)])
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    try:
        with no_progress_bars():
            return getattr(diffusers, family.parts["transformer"][1]).from_pretrained(
                folder, dtype=torch.float32, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{field}: no transformer can be read from {folder}: {first_line(error)}"
        ) from error


def load_start(spec: str, teacher: FlowTeacher) -> Any:
    """A copy of the teacher's transformer in float32 on the CPU, with the file's weights, or with
    its LoRA fused."""
    [path] = locate([Asset("student.start", spec, "file")])
    network = copy.deepcopy(teacher.denoiser.module).to("cpu", torch.float32)
    if path.suffix == ".safetensors" and what_is(keys_of(path, "student.start")) == "a LoRA":
        pipeline = type(teacher.pipe)
        fuse_into_network(network, path, "student.start", lambda *of: _load_adapter(pipeline, *of))
    else:
        replace_weights(network, path, "student.start")
    return network


def _load_adapter(pipeline: Any, path: Path, network: Any) -> None:
    state = pipeline.lora_state_dict(str(path.parent), weight_name=path.name)
    state = state[0] if isinstance(state, tuple) else state
    pipeline.load_lora_into_transformer(state, network)


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


def meta_pipeline(
    family: Family, model: str, dtype: torch.dtype, left_out: Collection[str], device: str
) -> Any:
    """A pipeline of the folder's sizes, or of a published model's, without weights."""
    import diffusers

    configs = {n: c for n, c in family.configs_of(model).items() if n not in left_out}
    classes = {n: of for n, of in family.classes_of(model).items() if n in configs}
    with torch.device(device):
        networks = {n: _network(*of, dict(configs[n]), dtype) for n, of in classes.items()}
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_config(configs["scheduler"])
    pipeline = getattr(diffusers, family.pipeline)
    needed = [n for n, p in signature(pipeline).parameters.items() if p.default is p.empty]
    others = {n: None for n in needed if n not in networks}
    pipe = pipeline(**{**others, **networks, "scheduler": scheduler})
    length = int(configs["text_encoder"].get("max_position_embeddings", 77))
    pipe.tokenizer_max_length = length
    for name in others:
        if name.startswith("tokenizer"):
            setattr(pipe, name, BlankTokenizer(length))
    return pipe


def _network(library: str, name: str, config: dict[str, Any], dtype: torch.dtype) -> Any:
    network_class = getattr(import_module(library), name)
    if library == "diffusers":
        return convert(network_class.from_config(config), dtype)
    return convert(network_class(network_class.config_class(**config)), dtype)


class BlankTokenizer:
    """Texts of no tokens, padded: networks without weights see their number alone."""

    def __init__(self, length: int) -> None:
        self.model_max_length = length

    def __call__(self, texts: str | list[str], max_length: int | None = None, **_: Any) -> Any:
        """`input_ids` (B, L) of zeros, and an `attention_mask` of ones."""
        rows = 1 if isinstance(texts, str) else len(texts)
        ids = torch.zeros(rows, max_length or self.model_max_length, dtype=torch.long)
        return SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    def apply_chat_template(self, *_: Any, **__: Any) -> str:
        """A text."""
        return ""

    def batch_decode(self, ids: Any) -> list[str]:
        """Nothing was cut off."""
        return []

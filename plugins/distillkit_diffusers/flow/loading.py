"""Files -> a pipeline with a transformer; and one of the true sizes without weights, for plans."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit_diffusers.common.lora import fuse_into_network, fuse_into_pipeline
from distillkit_diffusers.common.quantized import plain_sizes
from distillkit_diffusers.io.folders import short_vocabulary
from distillkit_diffusers.io.hub import Asset, first_line, locate
from distillkit_diffusers.io.loading import no_progress_bars
from distillkit_diffusers.io.model_configs import read_json
from distillkit_diffusers.io.tensor_names import what_is
from distillkit_diffusers.io.weights import convert, keys_of, read_weights

if TYPE_CHECKING:
    from distillkit_diffusers.common.low_rank import Change
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
        pipe = getattr(diffusers, family.pipeline).from_pretrained(
            folder, dtype=dtype, variant=variant, local_files_only=True, **without
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"teacher.model: {folder} is incomplete: {first_line(error)}") from error
    if flaw := short_vocabulary(pipe.components, folder):
        raise UserError(f"teacher.model: {flaw}")
    return pipe


def load_transformer(family: Family, asset: Asset, dtype: torch.dtype = torch.float32) -> Any:
    """A transformer from its folder or a pipeline's. Raises `UserError`."""
    import diffusers

    [path] = locate([asset])
    folder = path / "transformer" if (path / "transformer").is_dir() else path
    wanted = family.parts["transformer"][1]
    found = read_json(folder / "config.json").get("_class_name", "no network's folder")
    if found != wanted:
        raise UserError(f"{asset.field}: {folder} is {found}, and a {wanted} is needed")
    try:
        with no_progress_bars():
            return getattr(diffusers, wanted).from_pretrained(
                folder, dtype=dtype, local_files_only=True
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{asset.field}: no transformer can be read from {folder}: {first_line(error)}"
        ) from error


def load_start(asset: Asset, teacher: FlowTeacher, dtype: torch.dtype = torch.float32) -> Any:
    """A transformer of the teacher's sizes on the CPU: the folder's or file's, or the teacher's own
    with a file's LoRA fused. Raises `UserError`."""
    [path] = locate([asset])
    field = asset.field
    if path.is_dir():
        network = load_transformer(teacher.family, asset, dtype)
        check_shapes(network.state_dict(), teacher.denoiser.module, path, field)
        return network
    network = copy.deepcopy(teacher.full_precision()).to("cpu", dtype)
    if path.suffix == ".safetensors" and what_is(keys_of(path, field)) == "a LoRA":
        pipeline = type(teacher.pipe)
        fuse_into_network(network, path, field, lambda *of: _load_adapter(pipeline, *of))
    else:
        replace_weights(network, path, field)
    return network


def load_change(assets: Sequence[Asset], teacher: FlowTeacher) -> Change:
    """The difference of two transformers, read in the teacher's number format."""
    dtype = teacher.denoiser.module.dtype
    weights = [load_start(asset, teacher, dtype).state_dict() for asset in assets]
    return lambda name: weights[0][name].float() - weights[1][name].float()


def _load_adapter(pipeline: Any, path: Path, network: Any) -> None:
    state = pipeline.lora_state_dict(str(path.parent), weight_name=path.name)
    state = state[0] if isinstance(state, tuple) else state
    pipeline.load_lora_into_transformer(state, network)


def replace_weights(network: Any, path: Path, field: str) -> None:
    """Replace the transformer's weights by the file's, which has diffusers' names or the original
    ones, as single files do.

    `field`: of the recipe, for errors. Raises `UserError` where the file holds another network.
    """
    weights = read_weights(path, field)
    own = network.state_dict()
    if own.keys() - weights.keys():
        weights = _converted(network, weights)
    # What does not train, as a table of positions: a run's snapshots leave it out.
    fixed = own.keys() - {name for name, _ in network.named_parameters()} - weights.keys()
    weights |= {name: own[name] for name in fixed}
    check_shapes(weights, network, path, field)
    network.load_state_dict(weights)


def check_shapes(weights: Mapping[str, Tensor], network: Any, path: Path, field: str) -> None:
    """Raises `UserError` where the weights are those of another network."""
    own = plain_sizes(network)
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


PREFIXES = ("model.diffusion_model.", "diffusion_model.", "")
"""Of the original names."""


def _converted(network: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The transformer's weights with diffusers' names, where the file has the family's original
    ones, alone or in a whole checkpoint; else as given."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    convert_names = SINGLE_FILE_LOADABLE_CLASSES[type(network).__name__]["checkpoint_mapping_fn"]
    for prefix in PREFIXES:  # those of a whole checkpoint have one, and it has other networks
        if inside := {
            n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)
        }:
            break
    try:
        made = convert_names(checkpoint=inside, config=network.config)
    except Exception:  # the library's converters fail in many ways on files of other families
        return weights
    own = network.state_dict().keys()
    return {name: made[name] for name in own} if own <= made.keys() else weights


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

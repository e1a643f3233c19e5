"""The names of a family. Needs neither torch nor diffusers."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from distillkit_diffusers.io.folders import without_vocabulary
from distillkit_diffusers.io.hub import Asset
from distillkit_diffusers.io.model_configs import local_path, read_json

Configs = Mapping[str, Mapping[str, Any]]
"""Name of a pipeline's part -> its config."""


PREFIXES = ("", "transformer.", "model.diffusion_model.", "diffusion_model.")
"""Of a transformer's names in a checkpoint, and in files of a transformer alone."""


class Blocks(NamedTuple):
    """What critics may tap in a transformer."""

    width: int
    """Units of a token."""
    depth: int
    """Number of blocks."""
    patch: int
    """Latent cells a side of a token."""
    pooled: int = 0
    """Channels of the pooled prompt among its conditions; 0 where there is none."""


class OriginalNames(NamedTuple):
    """How a family's authors name the tensors that diffusers renames, splits or turns around.

    `*` stands for the number of a block, and `$` for that of the last one; a name may go on after
    what is written here.
    """

    renamed: Mapping[str, str]
    """diffusers' name -> the original one."""
    fused: Mapping[tuple[str, str, str], str]
    """Query, key and value -> the tensor that holds them one below the other."""
    swapped: tuple[str, ...] = ()
    """By diffusers' names: modulations whose halves, shift and scale, lie the other way round."""


@dataclass(frozen=True)
class Family:
    """A family of models: its classes in diffusers, and what is known of published ones."""

    name: str
    """In sentences: `Stable Diffusion 3`."""
    type: str
    """Of its teachers in recipes."""
    pipeline: str
    """Class of its pipeline in diffusers."""
    parts: Mapping[str, tuple[str, str]]
    """Of each network in the pipeline the library and class, where no folder says another."""
    markers: tuple[tuple[str, ...], ...]
    """Tensors that together no other family's transformer has, by diffusers' names and by the
    original ones."""
    lora_targets: tuple[str, ...]
    """Ends of the names of the layers that get a LoRA."""
    blocks: Callable[[Mapping[str, Any]], Blocks]
    """Read from a transformer's config."""
    original: OriginalNames
    """Source: the original files, as diffusers' `from_single_file` reads them."""
    sizes: Mapping[str, Configs]
    """Published model -> the configs of its parts. The first is what an unknown model is taken to
    be."""

    def configs_of(self, model: str | Path) -> Configs:
        """The config of each part: the folder's, or those that a published model is known to
        have."""
        folder = local_path(model)
        default = next(iter(self.sizes.values()))
        if (folder / "transformer" / "config.json").is_file():
            found = {name: read_json(folder / name / "config.json") for name in default}
            found["scheduler"] = read_json(folder / "scheduler" / "scheduler_config.json")
            return {name: config for name, config in found.items() if config}
        return self.sizes.get(str(model), default)

    def classes_of(self, model: str | Path) -> Mapping[str, tuple[str, str]]:
        """Library and class of each network: the folder's, or the family's usual ones."""
        index = read_json(local_path(model) / "model_index.json")
        found = {n: tuple(index[n]) for n in self.parts if isinstance(index.get(n), list)}
        return {**self.parts, **{n: of for n, of in found.items() if of[0] is not None}}

    def static_shift(self, model: str) -> float | None:
        """The shift of a model's scheduler, where it is known here and the same for all sizes."""
        if self.is_assumed(model):
            return None
        config = self.configs_of(model)["scheduler"]
        return None if config.get("use_dynamic_shifting") else float(config["shift"])

    def is_assumed(self, model: str) -> bool:
        """Whether nothing here tells the model's sizes."""
        folder = local_path(model) / "transformer" / "config.json"
        return not folder.is_file() and model not in self.sizes

    def flaw_of(self, path: Path, left_out: Collection[str] = ()) -> str | None:
        """What is wrong with a model on this machine, if anything: a file, a folder of another
        family, one without the folder of a part or a tokenizer's vocabulary, one whose scheduler is
        none of a flow like this family's. `left_out`: parts that are not loaded."""
        if path.is_file():
            return (
                f"{path} is one file, and has not all text encoders of the family; name a "
                f"{self.pipeline} folder, and set teacher.transformer to this file"
            )
        if not path.is_dir():
            return None
        index = read_json(path / "model_index.json")
        if index.get("_class_name") != self.pipeline:
            what = index.get("_class_name", "no diffusers pipeline folder")
            return f"{path} is {what}, and a {self.pipeline} is needed"
        if flaw := scheduler_flaw(read_json(path / "scheduler" / "scheduler_config.json")):
            return f"{path}'s scheduler {flaw}"
        parts = [n for n, of in index.items() if isinstance(of, list) and of[0] is not None]
        missing = [n for n in parts if n not in left_out and not (path / n).is_dir()]
        if missing:
            return (
                f"{path} has no {missing[0]}, which its model_index.json names; download the whole "
                f"model, or copy {missing[0]}/ from the model that it was made from"
            )
        tokenizers = [n for n in parts if n.startswith("tokenizer") and n not in left_out]
        return next(without_vocabulary(path, tokenizers), None)

    def absent(self, folder: Path) -> list[str]:
        """Parts that a folder of the family says it does not have."""
        index = read_json(folder / "model_index.json")
        return [n for n, of in index.items() if isinstance(of, list) and of[0] is None]

    def names(self, keys: Collection[str]) -> dict[str, str] | None:
        """Of a file that holds the family's transformer: its tensors' names, without a prefix, and
        the file's keys. The original layout has names of its own."""
        for prefix in PREFIXES:
            if any(all(prefix + m in keys for m in group) for group in self.markers):
                return {k.removeprefix(prefix): k for k in keys if k.startswith(prefix)}
        return None

    def assets(
        self, model: str, variant: str | None, transformer: str | None, lora: str | None
    ) -> list[Asset]:
        """What a teacher is loaded from; arguments as in `FlowTeacherConfig`."""
        assets = [Asset("teacher.model", model, "pipeline", variant, self.pipeline)]
        assets += [Asset("teacher.transformer", transformer, "file")] if transformer else []
        assets += [Asset("teacher.lora", lora, "file")] if lora else []
        return assets


EULER = "FlowMatchEulerDiscreteScheduler"


def scheduler_flaw(config: Mapping[str, Any]) -> str | None:
    """What in a scheduler's config samples otherwise than teachers do, if anything."""
    if (name := config.get("_class_name", EULER)) != EULER:
        return f"is {name}, and teachers of a flow sample by {EULER} alone"
    for field, only in (("invert_sigmas", False), ("num_train_timesteps", 1000)):
        if (found := config.get(field, only)) != only:
            said, known = json.dumps(found), json.dumps(only)
            return f"has `{field}: {said}`, and teachers of a flow know {known} alone"
    return None


def changed(base: Configs, part: str, **fields: Any) -> Configs:
    """Configs that differ in one part."""
    return {**base, part: {**base[part], **fields}}


def spread(blocks: int, taps: int = 5) -> tuple[int, ...]:
    """Blocks that are tapped by default: `taps` of them, in the middle of equal shares."""
    return tuple(sorted({(2 * i + 1) * blocks // (2 * taps) for i in range(taps)}))


VAE_16: Mapping[str, Any] = {
    "sample_size": 1024,
    "latent_channels": 16,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
"""The autoencoder of 16 channels that Stable Diffusion 3 and Z-Image have, without its scale and
shift."""
QWEN3_4B: Mapping[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
"""The text encoder of two families. Source: Qwen/Qwen3-4B's config."""

"""SDXL-class models as files: fulfils `distillkit.exchange.Layout`.

The names that all files of the family share are the original ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from distillkit.contracts import Teacher
from distillkit_diffusers.layout import find_unet, what_is

PIPELINE = "StableDiffusionXL"
"""What the class names of SDXL's pipelines start with."""


class SDXLFiles:
    """UNets under diffusers' names, or the original ones, alone or in a whole checkpoint."""

    def names(self, keys: Collection[str]) -> Mapping[str, str] | None:
        """The UNet's tensors: original name -> the file's key."""
        return find_unet(keys)

    def what_is(self, keys: Collection[str]) -> str:
        """What a file with these keys seems to be."""
        return what_is(keys)

    def recognises(self, model: Path) -> bool:
        """Whether it is an SDXL pipeline folder, or a file that holds an SDXL-class UNet."""
        if model.is_dir():
            name = str(_read(model / "model_index.json").get("_class_name", ""))
            return name.startswith(PIPELINE)
        if model.suffix != ".safetensors":
            return False
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(model, "pt") as file:
                return find_unet(set(file.keys())) is not None
        except (OSError, SafetensorError):
            return False

    def published_shift(self, folder: Path) -> int | None:
        """What the folder's scheduler says, if it is one with a shifted timestep."""
        for config in sorted(folder.glob("*/scheduler_config.json")):
            shift = _read(config).get("shifted_timestep")
            if isinstance(shift, int):
                return shift
        return None

    def open(self, model: str, weights: str | None, dtype: str) -> Teacher:
        """The pipeline, with `weights` in the place of its UNet's."""
        from distillkit_diffusers.configs import SDXLTeacherConfig

        fields = {"model": model, "unet": weights, "dtype": dtype}
        return SDXLTeacherConfig.model_validate(fields).build()


def _read(config: Path) -> dict[str, object]:
    """A JSON file's mapping; empty where it can't be read: whoever loads the folder reports it."""
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

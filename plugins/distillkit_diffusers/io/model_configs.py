"""What a model's files say without loading it: its sizes, and what is missing.

Neither torch nor diffusers is imported: `distillkit check` reads this.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distillkit.errors import UserError
from distillkit.exchange import packaged_path
from distillkit.remarks import LevelInputs, Remark
from distillkit_diffusers.io.hub import Asset, not_there
from distillkit_diffusers.io.sdxl_files import SDXL_FILES

BASE = "stabilityai/stable-diffusion-xl-base-1.0"
"""The model whose configs are in `SDXL_FILES`."""


def local_path(model: str | Path) -> Path:
    """Where a model that a recipe names would lie on this machine; one in a package that isn't
    installed lies nowhere, and is named by whoever looks for its files."""
    try:
        return packaged_path(str(model), "teacher.model")
    except UserError:
        return Path(model)


def folder_of_configs(model: str | Path, config: str | None = None) -> Path:
    """The pipeline folder whose configs have the sizes of `model`; without one, SDXL's."""
    for named in (model, config):
        folder = local_path(named) if named else None
        if folder is not None and (folder / "unet" / "config.json").is_file():
            return folder
    return SDXL_FILES


def read_unet_config(model: str | Path, config: str | None = None) -> dict[str, Any] | None:
    """The UNet's config, where it is on this machine or the model is SDXL base itself."""
    folder = folder_of_configs(model, config)
    if folder == SDXL_FILES and str(model) != BASE:
        return None
    return read_json(folder / "unet" / "config.json") or None


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file, or an empty one: unreadable files are reported on loading."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def unet_config_of(teacher: Any) -> dict[str, Any] | None:
    """Of a teacher of this family: the config of its UNet, which a backbone's `model` has too."""
    return teacher.unet_config() if hasattr(teacher, "unet_config") else None


def level_channels(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Channels of each map of a UNet's encoder: SDXL has 320 x4, 640 x3, 1280 x3."""
    widths, layers = config["block_out_channels"], config["layers_per_block"]
    per_block = [layers] * len(widths) if isinstance(layers, int) else layers
    channels = [widths[0]]
    for i, (width, count) in enumerate(zip(widths, per_block, strict=True)):
        downsamplers = 1 if i < len(widths) - 1 else 0
        channels += [width] * (count + downsamplers)
    return (*channels, widths[-1])


def level_inputs(config: Mapping[str, Any]) -> tuple[LevelInputs, ...]:
    """What each map of a UNet's encoder hears: of the prompt its pooled embedding, which is added
    to the time embedding of every residual block; and its tokens from the first block with
    cross-attention on. SDXL's levels 1 to 3 lie before that, and level 0 is a convolution of x_t.
    """
    tokens, pooled = LevelInputs("the prompt's words"), LevelInputs("the pooled prompt alone")
    layers = config["layers_per_block"]
    kinds, heard, found = config["down_block_types"], pooled, [LevelInputs(timestep=False)]
    counts = [layers] * len(kinds) if isinstance(layers, int) else layers
    for i, (kind, count) in enumerate(zip(kinds, counts, strict=True)):
        heard = tokens if "CrossAttn" in kind else heard
        found += [heard] * (count + (i < len(kinds) - 1))
    crosses = "CrossAttn" in (config.get("mid_block_type") or "UNetMidBlock2DCrossAttn")
    return (*found, tokens if crosses else heard)


def missing_files(assets: Iterable[Asset]) -> Iterator[Remark]:
    """Paths that do not exist; of what may be on the hub nothing is said."""
    for asset in assets:
        if not asset.on_hub and not packaged_path(asset.spec, asset.field).exists():
            field = asset.field.partition(".")[2]
            yield Remark(f"'{asset.spec}' is not on this machine; {not_there(asset)}", field)


def assumed_sizes(model: str, config: str | None) -> Iterator[Remark]:
    """A note for plans of a model whose configs are not at hand."""
    if folder_of_configs(model, config) == SDXL_FILES and model != BASE:
        said = f"'{model}' is no folder here: its sizes are taken to be those of SDXL base 1.0"
        yield Remark(said, "model", is_error=False)


def missing_peft(field: str) -> Iterator[Remark]:
    """The package that LoRAs are fused by."""
    if find_spec("peft") is None:
        yield Remark("LoRAs need peft: pip install 'peft>=0.17'", field)

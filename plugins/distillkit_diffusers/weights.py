"""Files of weights: what is in them, and putting them into a UNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit_diffusers.assets import first_line
from distillkit_diffusers.layout import find_unet, unet_names, what_is

if TYPE_CHECKING:
    from collections.abc import Set


def put_weights(unet: Any, path: Path, field: str) -> None:
    """Replace the UNet's weights by the file's, of diffusers' names or the original ones."""
    weights = unet_weights(path, field)
    own = {original: (name, w) for (name, w), original in _with_original(unet)}
    absent, foreign = own.keys() - weights.keys(), weights.keys() - own.keys()
    if absent or foreign:
        raise UserError(
            f"{field}: {path} does not hold this model's UNet: {len(absent)} of {len(own)} tensors "
            f"are absent ({_few(absent)}) and {len(foreign)} do not belong ({_few(foreign)})"
        )
    odd = [name for name in own if own[name][1].shape != weights[name].shape]
    if odd:
        name = odd[0]
        raise UserError(
            f"{field}: {path} is a UNet of another size: {len(odd)} tensors differ, {own[name][0]} "
            f"is {tuple(weights[name].shape)} and should be {tuple(own[name][1].shape)}"
        )
    unet.load_state_dict({name: weights[original] for original, (name, _) in own.items()})


def _with_original(unet: Any) -> Any:
    state = unet.state_dict()
    names = unet_names(state)
    return [((name, w), names[name]) for name, w in state.items()]


def unet_weights(path: Path, field: str) -> dict[str, Tensor]:
    """The UNet's tensors in a file by their original names; nothing else of it is read."""
    weights = read_weights(path, field)
    names = find_unet(weights.keys())
    if names is None:
        raise UserError(
            f"{field}: {path} is {what_is(weights)}, and the UNet of an SDXL-class model is needed"
        )
    return {original: weights[key] for original, key in names.items()}


def read_weights(path: Path, field: str) -> dict[str, Tensor]:
    """Tensors by name; pickled files are read with `weights_only`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError) as error:
        raise UserError(
            f"{field}: {path} cannot be read: {first_line(error)}; it may be cut short: fetch it "
            "again"
        ) from error
    except Exception as error:  # pickle's own errors, which torch does not wrap
        raise UserError(
            f"{field}: {path} is not a plain file of weights; get its .safetensors form"
        ) from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]  # as old checkpoints have it
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UserError(f"{field}: {path} holds something else than tensors by name")
    return weights


def keys_of(path: Path, field: str) -> Set[str]:
    """The names of a file's tensors."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return read_weights(path, field).keys()
    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{field}: {path} cannot be read: {first_line(error)}; it may be cut short: fetch it "
            "again"
        ) from error


def _few(names: set[str]) -> str:
    shown = sorted(names)[:2]
    return ", ".join(shown + ["..."] * (len(names) > 2)) or "none"

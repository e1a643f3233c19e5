"""Files of weights: the tensors and names in them, and loading them into a UNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distillkit.errors import UserError
from distillkit_diffusers.io.hub import first_line
from distillkit_diffusers.io.tensor_names import find_unet, unet_names, what_is

if TYPE_CHECKING:
    from collections.abc import Set


def replace_weights(unet: Any, path: Path, field: str) -> None:
    """Replace the UNet's weights by the file's, which has diffusers' names or the original ones.

    `field`: of the recipe, for errors. Raises `UserError` where the file holds another network.
    """
    weights = unet_weights(path, field)
    state = unet.state_dict()
    original = unet_names(state)
    missing = set(original.values()) - weights.keys()
    unexpected = weights.keys() - original.values()
    if missing or unexpected:
        raise UserError(
            f"{field}: {path} does not hold this model's UNet: {len(missing)} of {len(state)} "
            f"tensors are missing ({_few(missing)}) and {len(unexpected)} are unexpected "
            f"({_few(unexpected)})"
        )
    sizes = {name: (w.shape, weights[original[name]].shape) for name, w in state.items()}
    differing = [name for name, (own, found) in sizes.items() if own != found]
    if differing:
        name = differing[0]
        own, found = sizes[name]
        raise UserError(
            f"{field}: {path} is a UNet of another size: {len(differing)} tensors differ, {name} "
            f"is {tuple(found)} and should be {tuple(own)}"
        )
    unet.load_state_dict({name: weights[original[name]] for name in state})


def unet_weights(path: Path, field: str) -> dict[str, Tensor]:
    """The UNet's tensors in a file, by their original names."""
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
        raise _unreadable(path, field, error) from error
    except Exception as error:  # pickle's own errors, which torch does not wrap
        raise UserError(
            f"{field}: {path} is not a plain file of weights; get its .safetensors form"
        ) from error
    if isinstance(weights, dict) and isinstance(weights.get("state_dict"), dict):
        weights = weights["state_dict"]  # the form of old checkpoints
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UserError(f"{field}: {path} is not a mapping of names to tensors")
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
        raise _unreadable(path, field, error) from error


def metadata_of(path: Path) -> dict[str, str]:
    """What a file of weights says of itself; nothing where its form has no place for that."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}  # whoever reads the tensors reports it


def convert(module: Any, dtype: Any) -> Any:
    """The module in another number format, without the warnings of diffusers' own `to`."""
    return torch.nn.Module.to(module, dtype)


def _unreadable(path: Path, field: str, error: Exception) -> UserError:
    return UserError(
        f"{field}: {path} cannot be read: {first_line(error)}; it may be truncated: download it "
        "again"
    )


def _few(names: set[str]) -> str:
    shown = sorted(names)[:2]
    return ", ".join(shown + ["..."] * (len(names) > 2)) or "none"

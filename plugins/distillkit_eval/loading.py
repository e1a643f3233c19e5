"""Models from this machine, or from the hub where it is reached; a sentence where neither has them.

A model is a file, a folder, or a name on the Hugging Face hub, `owner/name`. Importing this module
imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillkit.errors import UserError
from distillkit.remarks import Remark

if TYPE_CHECKING:
    from torch import Tensor, nn


def is_hub_name(model: str) -> bool:
    """`owner/name`, and nothing of that name here."""
    return model.count("/") == 1 and not model.startswith((".", "/", "~")) and " " not in model


def missing_file(model: str | None, field: str, names: Collection[str] = ()) -> Iterable[Remark]:
    """A remark where the model is not on this machine, and can't be fetched."""
    if model is None:
        return
    place = Path(model)
    if place.is_dir():
        for name in names:
            if not (place / name).is_file():
                yield Remark(f"there is no {name} in {model}", field)
    elif not place.exists() and (not is_hub_name(model) or _offline(model, names)):
        what = next(iter(names), place.name)
        yield Remark(f"{what} is not on this machine; {_advice(field)}", field)


def missing_package(module: str, package: str) -> Iterable[Remark]:
    """A remark where the package is not installed."""
    if find_spec(module) is None:
        yield Remark(f"needs {package}, which is not installed: pip install 'distillkit[eval]'")


def _offline(model: str, names: Collection[str]) -> bool:
    """Whether the hub is switched off and its cache here has not the model."""
    from huggingface_hub import constants, try_to_load_from_cache

    cached = [try_to_load_from_cache(model, name) for name in names or ("tokenizer_config.json",)]
    return bool(constants.HF_HUB_OFFLINE) and not all(isinstance(c, str) for c in cached)


def _advice(field: str) -> str:
    return f"set `{field}` to its path, or to a hub's name where the hub is reached"


@contextmanager
def reading(model: str, field: str) -> Iterator[None]:
    """Inside, what goes wrong while a model is read becomes a `UserError` that names it."""
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{field}: {model} can't be read: {reason}; {_advice(field)}") from error


def file_of(model: str, name: str, field: str) -> Path:
    """The file `name` of a model: the file itself, in a folder, or from the hub."""
    place = Path(model)
    if place.is_file():
        return place
    if place.is_dir() and (place / name).is_file():
        return place / name
    if place.is_dir() or not is_hub_name(model):
        raise UserError(f"{field}: there is no {name} at {model}; {_advice(field)}")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(model, name))
    except Exception as error:  # the hub's client raises many kinds
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{field}: {name} of {model} is not on this machine and could not be fetched "
            f"({reason}); {_advice(field)}"
        ) from error


def state_dict(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a .safetensors, or of a .pt, with nothing else run or read."""
    import pickle

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, pickle.PickleError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} can't be read as weights: {reason}") from error
    for outer in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(outer), dict):
            found = found[outer]
    return found


def fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path, ignore: str = "") -> None:
    """Load all of a module's weights. Names that end in `ignore` may be left over."""
    try:
        missing, unexpected = module.load_state_dict(dict(weights), strict=False)
    except RuntimeError as error:  # of another size
        reason = str(error).strip().rpartition("\n")[2].strip()
        raise UserError(f"{path} holds other weights than this metric's: {reason}") from None
    left = [name for name in unexpected if not (ignore and name.endswith(ignore))]
    missing = [name for name in missing if not name.endswith("position_ids")]
    if missing or left:
        what = f"no {missing[0]}" if missing else f"{left[0]}, which the network has not"
        raise UserError(f"{path} holds other weights than this metric's: {what}")


def pick_device(wanted: str | None) -> str:
    """The device that was asked for, or the GPU where there is one."""
    import torch

    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")


def quiet() -> None:
    """Warnings of packages that none of our parts uses, and bars within our own progress."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from transformers.utils import logging

    logging.disable_progress_bar()

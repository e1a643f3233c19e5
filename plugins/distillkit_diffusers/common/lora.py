"""LoRA files, fused into a pipeline's or a network's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from distillkit.errors import UserError
from distillkit_diffusers.io.hub import first_line


def fuse_into_pipeline(pipe: Any, path: Path, strength: float, field: str) -> None:
    """Add the LoRA's weights to the pipeline's, and unload the adapter.

    `field`: of the recipe, for errors. Raises `UserError` for a LoRA of another model.
    """
    require_peft(field)
    try:
        pipe.load_lora_weights(str(path.parent), weight_name=path.name)
    except Exception as error:  # diffusers and peft raise many types for a LoRA of another model
        raise _not_for_this_model(path, field, error) from error
    if not pipe.get_list_adapters():
        raise _without_weights(path, field)
    pipe.fuse_lora(lora_scale=strength)
    pipe.unload_lora_weights()


def fuse_into_network(
    network: Any, path: Path, field: str, load: Callable[[Path, Any], None]
) -> None:
    """Add the LoRA's weights to those of one network.

    `load(path, network)` loads the file as an adapter, by the family's pipeline class.
    """
    require_peft(field)
    try:
        load(path, network)
    except Exception as error:  # diffusers and peft raise many types for a LoRA of another model
        raise _not_for_this_model(path, field, error) from error
    if not getattr(network, "peft_config", None):
        raise _without_weights(path, field)
    network.fuse_lora()
    network.unload_lora()


def require_peft(field: str) -> None:
    """Raises `UserError` without the package that LoRAs need."""
    from diffusers.utils import is_peft_available

    if not is_peft_available():
        raise UserError(f"{field}: LoRAs need peft; install it with pip install 'peft>=0.17'")


def _not_for_this_model(path: Path, field: str, error: Exception) -> UserError:
    return UserError(f"{field}: {path} is not a LoRA for this model: {first_line(error)}")


def _without_weights(path: Path, field: str) -> UserError:
    return UserError(f"{field}: {path} has no weights for this model")

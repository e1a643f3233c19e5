"""A network as what trains of a student, and a student's module as a network again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from distillkit_diffusers.lora_twin import LoRATwin

if TYPE_CHECKING:
    from distillkit_diffusers.common.low_rank import Change


def make_trainable(network: Any, gradient_checkpointing: bool) -> Any:
    """The network itself, in float32, in training mode, with gradients for every weight."""
    network = network.float().train().requires_grad_(True)
    if gradient_checkpointing:
        network.enable_gradient_checkpointing()
    return network


@torch.no_grad()
def start_at(module: Any, change: Change) -> None:
    """Add a change to a student's network: whole, or the best part of its LoRA's rank."""
    if isinstance(module, LoRATwin):
        module.start_at(change)
        return
    for name, weight in module.named_parameters():
        if not weight.is_meta:
            weight.add_(change(name).to(weight.device, weight.dtype))


def merged_network(module: Any, network_class: Any, dtype: Any) -> Any:
    """A copy of a student's network on the CPU in `dtype`, any LoRA merged, wrappers removed."""
    from accelerate.utils import extract_model_from_parallel

    own = extract_model_from_parallel(module)
    weights = own.merged() if isinstance(own, LoRATwin) else own.state_dict()
    with torch.device("meta"):
        copy = network_class.from_config(own.config)
    copy.load_state_dict({n: w.detach().to("cpu", dtype) for n, w in weights.items()}, assign=True)
    return copy.eval().requires_grad_(False)

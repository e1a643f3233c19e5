"""A trainable LoRA over a frozen network whose tensors it shares.

The network with LoRA layers is a twin of the given one: modules of its own, the same parameters. So
the teacher and the backbone run as if there were no LoRA ("adapters off"), no adapter has to be
enabled or disabled, and the frozen weights are in memory once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillkit.errors import Notice, UserError
from distillkit.randomness import generator
from distillkit_diffusers.common.low_rank import low_rank
from distillkit_diffusers.common.precision import own_format
from distillkit_diffusers.common.quantized import plain_sizes, quantize_like
from distillkit_diffusers.io.hub import first_line

if TYPE_CHECKING:
    from distillkit_diffusers.common.low_rank import Change

ADAPTER = "default"
TIMES = ("timestep", "t")
"""How networks call the time that they are told."""


class LoRATwin(nn.Module):
    """Called like the network; its parameters are the LoRA's alone, in float32.

    So optimizer, EMA, snapshots and data-parallel wrappers see nothing else.
    """

    def __init__(
        self,
        network: Any,
        rank: int,
        targets: Sequence[str],
        gradient_checkpointing: bool = False,
        full_precision: Callable[[], Any] | None = None,
    ) -> None:
        """`targets`: ends of the names of the layers that get a LoRA; up matrices start at zero.
        `full_precision`: of a network whose weights are packed, gives one with whole weights."""
        super().__init__()
        self.config = network.config
        self._number_format = network.dtype
        twin = _share(network)
        own = zip(twin.modules(), network.modules(), strict=True)
        object.__setattr__(self, "_with_buffers", [(t, n) for t, n in own if n._buffers])
        object.__setattr__(self, "_network", network)
        layers = _add_lora(twin, rank, targets)
        # Bypasses nn.Module's registration: frozen weights are no parameters of the student.
        object.__setattr__(self, "_twin", twin)
        object.__setattr__(self, "_full_precision", full_precision)
        object.__setattr__(self, "_layers", layers)
        self.lora = nn.ParameterDict()
        for name, layer in layers.items():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            with torch.no_grad():
                down.copy_(torch.randn(down.shape, generator=generator(0, "lora", name)) / rank)
                up.zero_()
            self.lora[f"{name.replace('.', '_')}_down"] = down
            self.lora[f"{name.replace('.', '_')}_up"] = up
        if gradient_checkpointing:
            self.enable_gradient_checkpointing()

    def forward(self, x_t: Any, return_dict: bool = False, **given: Any) -> tuple[Any]:
        """The network's output, computed in the frozen weights' number format.

        `x_t`: one tensor, or a list of one a picture, as the network takes it; the output is in its
        number format. `given`: what the network takes beside it, by its own names. The time is not
        rounded to the number format.
        """
        dtype = self._number_format
        first = x_t[0] if isinstance(x_t, list) else x_t
        rounded = {n: value if n in TIMES else _cast(value, dtype) for n, value in given.items()}
        for twin, network in self._with_buffers:
            # Unlike parameters, buffers are other objects once the network has moved.
            twin._buffers.update(network._buffers)
        with own_format(dtype, first.device):
            output = self._twin(_cast(x_t, dtype), return_dict=False, **rounded)
        return (_cast(output[0], first.dtype),)

    def enable_gradient_checkpointing(self) -> None:
        """As the network's own method; the network itself, which may be shared, stays as it is."""
        self._twin.enable_gradient_checkpointing()

    @property
    def calls(self) -> Any:
        """The network with its LoRA, which is not among this module's own: for `run.compile`."""
        return self._twin

    def _apply(self, fn: Any, recurse: bool = True) -> LoRATwin:
        """Moves the frozen network too, which may be nobody else's."""
        super()._apply(fn, recurse)
        self._network._apply(fn)
        return self

    @torch.no_grad()
    def start_at(self, change: Change) -> None:
        """Set each layer's matrices to the best part of their rank of what is added to it.

        Tells how much of the whole change that is, as a `Notice`.
        """
        kept = inside = 0.0
        for name, layer in self._layers.items():
            down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
            if down.is_meta:
                return
            delta = change(f"{name}.weight")
            best_down, best_up, best = low_rank(delta, len(down))
            down.copy_(best_down.view_as(down))
            up.copy_(best_up.view_as(up))
            kept, inside = kept + best, inside + _square(delta)
        own = {f"{name}.weight" for name in self._layers}
        whole = inside + sum(_square(change(n)) for n in plain_sizes(self._network) if n not in own)
        if whole:
            said = f"the LoRA holds {kept / whole:.0%} of the difference (of its squared norm): "
            said += f"{inside / whole:.0%} lies in the layers that `targets` names"
            warnings.warn(f"student.start: {said}", Notice, stacklevel=2)

    @torch.no_grad()
    def merged(self) -> dict[str, Tensor]:
        """The network's whole weights under their own names with the LoRA merged: W + B A."""
        weights = self._frozen()
        for layer_name, layer in self._layers.items():
            name, change = f"{layer_name}.weight", layer.get_delta_weight(ADAPTER)
            weights[name] = weights[name].float() + change.float().to(weights[name].device)
        return weights

    def _frozen(self) -> dict[str, Tensor]:
        if self._full_precision is not None:
            return dict(self._full_precision().state_dict())
        return {
            name.replace(".base_layer.", "."): weight
            for name, weight in self._twin.state_dict().items()
            if ".lora_A." not in name and ".lora_B." not in name
        }


def _square(tensor: Tensor) -> float:
    return float(tensor.double().square().sum())


def _cast(value: Any, dtype: Any) -> Any:
    """Tensors of real numbers in `dtype`, in mappings and lists too; ids and masks as they are."""
    if isinstance(value, dict):
        return {name: _cast(inner, dtype) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cast(inner, dtype) for inner in value]
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _share(network: Any) -> Any:
    """Another network over the same parameter objects: moving one moves the other."""
    with torch.device("meta"):
        twin = type(network).from_config(network.config)
    quantize_like(twin, network)
    twin.load_state_dict(network.state_dict(keep_vars=True), assign=True)
    return twin.eval().requires_grad_(False)


def _add_lora(network: Any, rank: int, targets: Sequence[str]) -> dict[str, Any]:
    """Wrap the target layers in LoRA layers; returns these by the wrapped layers' names."""
    try:
        from peft import LoraConfig
        from peft.tuners.lora import LoraLayer
    except ImportError:
        raise UserError(
            "student.train: LoRAs need peft; install it with pip install 'peft>=0.17'"
        ) from None
    # Some families call a layer in one block as they call a list of layers in another.
    ends = tuple(f".{target}" for target in targets)
    names = [
        n for n, m in network.named_modules() if f".{n}".endswith(ends) and not [*m.children()]
    ]
    chosen = names or list(targets)
    try:
        network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=chosen))
    except ValueError as error:
        raise UserError(f"student.targets: {first_line(error)}") from None
    layers = {
        name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLayer)
    }
    for layer in layers.values():
        # peft would widen what comes in to the matrices' float32, and compute in that.
        layer.cast_input_dtype_enabled = False
        for matrices in (layer.lora_A, layer.lora_B):
            matrices[ADAPTER] = _narrowed(matrices[ADAPTER].float().requires_grad_(True))
    return layers


def _narrowed(matrix: Any) -> Any:
    """The layer, computing in the number format of its input, whatever its weight's is."""
    kind = _Convolution if isinstance(matrix, nn.Conv2d) else _Linear
    matrix.__class__ = kind
    return matrix


class _Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight.to(input.dtype))


class _Convolution(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight.to(input.dtype), None)

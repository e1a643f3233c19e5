"""Frozen linear layers whose weights have 8 or 4 bits, and networks of them.

bitsandbytes packs and unpacks the weights. Its own layers are not used: they keep scales where
`to`, a LoRA's twin and a memory plan do not find them, and with 8 bits they round activations too.
Here all is in the layer's parameters, and products are those of the unpacked weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distillkit.errors import UserError

Bits = Literal[8, 4]
BLOCK = 64
"""Weights of 4 bits that share a scale (QLoRA, section 3)."""


class QuantizedLinear(nn.Linear):
    """x W^T + b; W has no gradient, and is unpacked for the product and for the gradient of x.

    4 bits: NF4 in blocks of 64 (Dettmers et al. 2023). 8 bits: whole numbers up to 127 with a scale
    a row (the weights of LLM.int8, Dettmers et al. 2022).
    """

    bits: Bits

    def __init__(self, linear: nn.Linear, bits: Bits) -> None:
        """Takes the layer's bias as it is. Raises `UserError` without bitsandbytes."""
        nn.Module.__init__(self)  # nn.Linear's would make a whole weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bits, self.dtype = bits, linear.weight.dtype
        packed, scale = _pack(linear.weight.detach(), bits)
        self.weight = nn.Parameter(packed, requires_grad=False)
        # Its bits, so that a network that is put into another number format does not round it.
        self.scale = nn.Parameter(scale.view(torch.int32), requires_grad=False)
        for parameter, count in ((self.weight, linear.weight.numel()), (self.scale, 0)):
            parameter.unpacked_numel = count
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """The product with weights in the number format that they came in, or autocast's."""
        shape = (self.out_features, self.in_features)
        result: Tensor = _Product.apply(
            input, self.weight, self.scale, self.bias, self.bits, shape, self.dtype
        )
        return result

    def plain(self) -> nn.Linear:
        """A layer with the unpacked weights."""
        shape = (self.out_features, self.in_features)
        weight = _unpack(self.weight, self.scale, self.bits, shape, self.dtype)
        with torch.device("meta"):
            linear = nn.Linear(self.in_features, self.out_features, self.bias is not None)
        linear.weight = nn.Parameter(weight, requires_grad=False)
        if self.bias is not None:
            linear.bias = self.bias
        return linear


class _Product(torch.autograd.Function):
    """Keeps packed weights for the backward pass, where autograd's own would keep whole ones."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        packed: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        bits: Bits,
        shape: tuple[int, int],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(packed, scale)
        ctx.bits, ctx.shape, ctx.dtype = bits, shape, x.dtype
        return F.linear(x, _unpack(packed, scale, bits, shape, dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        packed, scale = ctx.saved_tensors
        [grad] = grads
        weight = _unpack(packed, scale, ctx.bits, ctx.shape, grad.dtype)
        return (grad @ weight).to(ctx.dtype), None, None, None, None, None, None


def quantize(network: nn.Module, bits: Bits) -> None:
    """Pack the linear layers of the network's blocks, in place.

    Blocks are the entries of its module lists. What is before and after them is small, and errors
    there weigh more; convolutions and norms stay too.
    """
    for parent, name, layer in list(_layers(network)):
        if type(layer) is nn.Linear and layer.weight.numel() % BLOCK == 0:
            setattr(parent, name, QuantizedLinear(layer, bits))


def quantize_like(network: nn.Module, other: nn.Module) -> None:
    """Pack the network's layers as those of another of its class are, if they are."""
    if (bits := bits_of(other)) is None:
        return
    quantize(network, bits)
    for layer, model in zip(network.modules(), other.modules(), strict=True):
        if isinstance(layer, QuantizedLinear) and isinstance(model, QuantizedLinear):
            layer.dtype = model.dtype


def bits_of(network: nn.Module) -> Bits | None:
    """Bits of its packed layers; None where none is."""
    packed = (m.bits for m in network.modules() if isinstance(m, QuantizedLinear))
    return next(packed, None)


def plain_copy(network: Any) -> Any:
    """A copy with unpacked weights."""
    new = copy.deepcopy(network)
    for parent, name, layer in list(_layers(new)):
        if isinstance(layer, QuantizedLinear):
            setattr(parent, name, layer.plain())
    return new


def plain_sizes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the network's tensors by name, as they are without packing."""
    sizes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for name, layer in network.named_modules():
        if isinstance(layer, QuantizedLinear):
            sizes[f"{name}.weight"] = (layer.out_features, layer.in_features)
            del sizes[f"{name}.scale"]
    return sizes


def _layers(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Layers in the network's blocks, each once: what holds it, its name there, and it."""
    blocks = [b for m in network.modules() if isinstance(m, nn.ModuleList) for b in m]
    parents = {id(m): m for block in blocks for m in block.modules()}
    for parent in parents.values():
        for name, layer in parent.named_children():
            yield parent, name, layer


def _pack(weight: Tensor, bits: Bits) -> tuple[Tensor, Tensor]:
    """int8 of so many bits a weight, and float32 scales."""
    if weight.is_meta:
        scales = weight.numel() // BLOCK if bits == 4 else len(weight)
        packed = torch.empty(weight.numel() * bits // 8, dtype=torch.int8, device="meta")
        return packed, torch.empty(scales, device="meta")
    kernels = _kernels()
    # 2.6 B weights take minutes on a CPU.
    near = weight.cuda() if torch.cuda.is_available() else weight
    if bits == 8:
        packed, scale, _ = kernels.int8_vectorwise_quant(near.half().contiguous())
    else:
        packed, state = kernels.quantize_4bit(
            near.contiguous(), blocksize=BLOCK, quant_type="nf4", compress_statistics=False
        )
        scale = state.absmax
    return packed.flatten().view(torch.int8).to(weight.device), scale.to(weight.device)


def _unpack(
    packed: Tensor, scale: Tensor, bits: Bits, shape: tuple[int, int], dtype: torch.dtype
) -> Tensor:
    """W in `dtype`; on the meta device it needs no kernel."""
    if packed.is_meta:
        scale.new_empty(0)  # made from the parameters, so that a memory plan sees these
        return packed.new_empty(shape, dtype=dtype)
    scale = scale.view(torch.float32)
    if bits == 8:
        return packed.view(shape).to(dtype).mul_(scale[:, None] / 127)
    kernels = _kernels()
    state = kernels.QuantState(
        scale, shape=torch.Size(shape), blocksize=BLOCK, quant_type="nf4", dtype=dtype
    )
    weight: Tensor = kernels.dequantize_4bit(packed.view(torch.uint8)[:, None], state)
    return weight


def _kernels() -> Any:
    try:
        from bitsandbytes import functional
    except ImportError:
        raise UserError(
            "teacher.bits: 8 and 4 bits need bitsandbytes; install it with "
            "pip install 'distillkit[8bit]'"
        ) from None
    return functional

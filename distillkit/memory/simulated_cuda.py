"""What CUDA does differently from the meta device: mixed precision, and attention's kernels.

A torch-function mode for computations without data. Autocast's lists are those of torch's
documentation ("CUDA Ops that can autocast to float16" and "to float32"), as far as networks and
losses use them; attention's matrix of weights is never in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

LOW = {
    *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose2d, torch.conv2d),
    *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, Tensor.matmul),
    *(Tensor.__matmul__, F.scaled_dot_product_attention),
}
"""Computed in 16 bits."""
HIGH = {
    *(F.group_norm, F.layer_norm, F.softmax, F.log_softmax, F.softplus, F.mse_loss, F.l1_loss),
    *(F.smooth_l1_loss, F.cosine_similarity, F.normalize, F.binary_cross_entropy_with_logits),
    *(torch.softmax, Tensor.softmax, torch.exp, Tensor.exp, torch.log, Tensor.log, torch.sum),
    *(Tensor.sum, torch.pow, Tensor.pow, Tensor.__pow__, torch.norm, Tensor.norm, torch.rsqrt),
    *(Tensor.rsqrt, torch.reciprocal, Tensor.reciprocal, Tensor.__rtruediv__, torch.cumsum),
}
"""Computed in float32."""


class SimulatedCUDA(TorchFunctionMode):
    """Inside, operations on meta tensors have the dtypes that they have on a GPU."""

    def __init__(self, on_copy: Callable[[Tensor], None] = lambda _: None) -> None:
        """`on_copy` is called with each 16-bit copy of a weight that autocast keeps."""
        super().__init__()
        self.on_copy = on_copy
        self._dtype: torch.dtype | None = None
        self._copies: dict[Tensor, Tensor] = {}

    @contextmanager
    def autocast(self, precision: str) -> Iterator[None]:
        """Mixed precision, as recipes name it: no, bf16."""
        self._dtype = torch.bfloat16 if precision == "bf16" else None
        try:
            # What turns autocast off for a network turns this flag off: see `_casts`.
            with torch.autocast("cpu", enabled=self._dtype is not None):
                yield
        finally:
            self._dtype = None
            self._copies.clear()

    def _casts(self) -> bool:
        """Whether operations are cast. The meta device has no autocast; the CPU's flag stands for
        a GPU's, and does nothing to meta tensors."""
        return self._dtype is not None and torch.is_autocast_enabled("cpu")

    def backward(self, output: Tensor, gradient: Tensor | None = None) -> None:
        """As `output.backward(gradient)`.

        That would leave this mode, in which checkpointed forward passes are repeated.
        """
        ones = torch.ones_like(output) if gradient is None else gradient
        _engine_run_backward(
            (output,), (ones,), False, False, (), allow_unreachable=True, accumulate_grad=True
        )

    def grad(
        self, output: Tensor, inputs: Sequence[Tensor], retain_graph: bool, allow_unused: bool
    ) -> Sequence[Tensor | None]:
        """As `torch.autograd.grad`, which would leave this mode too."""
        gradients: Sequence[Tensor | None] = _engine_run_backward(
            (output,), (torch.ones_like(output),), retain_graph, False, tuple(inputs),
            allow_unreachable=allow_unused, accumulate_grad=False,
        )  # fmt: skip
        return gradients

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if (func in LOW or func in HIGH) and self._casts():
            cast = self._low if func in LOW else _high
            args = tuple(cast(value) for value in args)
            kwargs = {name: cast(value) for name, value in kwargs.items()}
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _low(self, value: Any) -> Any:
        """In 16 bits; copies of trainable weights are made once and kept, as autocast does."""
        if not _is_float32(value):
            return value
        if not (value.requires_grad and value.is_leaf):
            return value.to(self._dtype)
        if value not in self._copies:
            with torch.enable_grad():
                self._copies[value] = value.to(self._dtype)
            self.on_copy(self._copies[value])
        return self._copies[value]


def _is_float32(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.is_meta


def _high(value: Any) -> Any:
    low = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if low else value


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernel that torch picks: flash where it can, else the memory-efficient one."""
    aten = torch.ops.aten
    if attn_mask is None and query.dtype != torch.float32 and query.shape[-1] <= 256:
        out: Tensor = aten._scaled_dot_product_flash_attention(
            query, key, value, dropout_p, is_causal, False, scale=scale
        )[0]
        return out
    bias = attn_mask
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=query.dtype)
    if bias is not None:
        bias = bias.expand(*query.shape[:-1], key.shape[-2])
    keeps = torch.is_grad_enabled() and query.requires_grad
    made: Tensor = aten._scaled_dot_product_efficient_attention(
        query, key, value, bias, keeps, dropout_p, is_causal, scale=scale
    )[0]
    return made

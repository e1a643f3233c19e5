"""A LoRA extracted from two sets of weights: the best low-rank part of their difference.

Names are kohya's prefix with diffusers' module names (`lora_unet_down_blocks_1_...`), which
diffusers' `load_lora_weights` and ComfyUI both read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

ORIGINAL_NAMES = {
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
"""diffusers reads these two by their original names only; ComfyUI by either."""


@dataclass
class ExtractedLoRA:
    """A LoRA's tensors, and how much of the difference they keep."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    kept: float = 0.0
    """Sum of the squared singular values that are kept."""
    total: float = 0.0
    """Squared Frobenius norm of the whole difference, biases and norms included."""
    dropped: int = 0
    """Number of biases and norms that differ; a LoRA holds matrices only."""

    @property
    def share(self) -> float:
        """Share of the difference that is kept, 0 to 1; 1 where there is no difference."""
        return self.kept / self.total if self.total else 1.0


def extract_lora(
    weights: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    rank: int,
    dtype: torch.dtype,
    prefix: str | None = None,
) -> ExtractedLoRA:
    """The LoRA of at most `rank` that brings `base` nearest to `weights`, matrix by matrix.

    W - W_base = U S V; down = sqrt(S_r) V_r, up = U_r sqrt(S_r): the best approximation of its rank
    (Eckart-Young theorem). Convolutions are matrices (out, in * k * k). Every matrix gets the same
    rank, padded with zeros: diffusers 0.42 ignores the alpha of attention layers and uses the first
    layer's. `prefix`: of diffusers' own names (`transformer`); None writes kohya's, for a UNet.
    """
    lora = ExtractedLoRA()
    rank = min(rank, max(min(w.flatten(1).shape) for w in weights.values() if w.ndim > 1))
    for name, weight in weights.items():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        delta = weight.to(device, torch.float32) - base[name].to(device, torch.float32)
        size = float(delta.double().square().sum())
        lora.total += size
        if not size:
            continue
        if delta.ndim < 2:
            lora.dropped += 1
            continue
        U, S, V = torch.linalg.svd(delta.flatten(1), full_matrices=False)
        lora.kept += float(S[:rank].double().square().sum())
        root = S[:rank].sqrt()
        padding = rank - len(root)
        down = pad(root[:, None] * V[:rank], (0, 0, 0, padding))
        up = pad(U[:, :rank] * root, (0, padding))
        if delta.ndim == 4:
            down, up = down.reshape(rank, *delta.shape[1:]), up[:, :, None, None]
        module = name.removesuffix(".weight")
        if prefix is not None:
            for letter, matrix in (("A", down), ("B", up)):
                key = f"{prefix}.{module}.lora_{letter}.weight"
                lora.tensors[key] = matrix.to("cpu", dtype).contiguous()
            continue
        key = "lora_unet_" + ORIGINAL_NAMES.get(module, module).replace(".", "_")
        lora.tensors[f"{key}.lora_down.weight"] = down.to("cpu", dtype).contiguous()
        lora.tensors[f"{key}.lora_up.weight"] = up.to("cpu", dtype).contiguous()
        lora.tensors[f"{key}.alpha"] = torch.tensor(float(rank), dtype=dtype)
    return lora

"""A LoRA out of two sets of weights: the best low-rank part of their difference.

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
"""diffusers knows these two in the original spelling alone; ComfyUI knows both."""


@dataclass
class Extract:
    """The LoRA's tensors, and how much of the difference they keep."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    kept: float = 0.0
    """Sum of the squared singular values that are kept."""
    whole: float = 0.0
    """Squared Frobenius norm of the whole difference, biases and norms included."""
    dropped: int = 0
    """Biases and norms that differ; a LoRA holds matrices only."""

    @property
    def share(self) -> float:
        """Share of the difference that is kept, 0 to 1; 1 where there is no difference."""
        return self.kept / self.whole if self.whole else 1.0


def extract(
    weights: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int, dtype: torch.dtype
) -> Extract:
    """The LoRA of at most `rank` that brings `base` nearest to `weights`, matrix by matrix.

    W - W_base = U S V; down = sqrt(S_r) V_r, up = U_r sqrt(S_r): the best of its rank (Eckart and
    Young). Convolutions are taken as matrices (out, in * k * k). Every matrix gets the same rank,
    with zeros where it has less: diffusers 0.42 passes over the alpha of attention layers and
    gives them the first one's.
    """
    found = Extract()
    rank = min(rank, max(min(w.flatten(1).shape) for w in weights.values() if w.ndim > 1))
    for name, weight in weights.items():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        change = weight.to(device, torch.float32) - base[name].to(device, torch.float32)
        size = float(change.double().square().sum())
        found.whole += size
        if not size:
            continue
        if change.ndim < 2:
            found.dropped += 1
            continue
        U, S, V = torch.linalg.svd(change.flatten(1), full_matrices=False)
        found.kept += float(S[:rank].double().square().sum())
        root = S[:rank].sqrt()
        more = rank - len(root)
        down = pad(root[:, None] * V[:rank], (0, 0, 0, more))
        up = pad(U[:, :rank] * root, (0, more))
        if change.ndim == 4:
            down, up = down.reshape(rank, *change.shape[1:]), up[:, :, None, None]
        module = name.removesuffix(".weight")
        key = "lora_unet_" + ORIGINAL_NAMES.get(module, module).replace(".", "_")
        found.tensors[f"{key}.lora_down.weight"] = down.to("cpu", dtype).contiguous()
        found.tensors[f"{key}.lora_up.weight"] = up.to("cpu", dtype).contiguous()
        found.tensors[f"{key}.alpha"] = torch.tensor(float(rank), dtype=dtype)
    return found

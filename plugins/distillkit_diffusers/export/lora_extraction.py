"""A LoRA extracted from two sets of weights: the best low-rank part of their difference.

Names of a UNet's layers have kohya's prefix. `diffusers`: with diffusers' module names
(`lora_unet_down_blocks_1_...`), which diffusers and ComfyUI read. `kohya`: with the original ones
(`lora_unet_input_blocks_4_1_...`), as sd-scripts names SDXL's, and ComfyUI and diffusers 0.42 read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distillkit_diffusers.common.low_rank import low_rank
from distillkit_diffusers.io.tensor_names import unet_names

if TYPE_CHECKING:
    from distillkit_diffusers.choices import LoRANames

ORIGINAL_NAMES = {
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
"""diffusers reads these two by their original names only; ComfyUI by either."""
KOHYA_BLOCKS = ("input_blocks.", "middle_block.", "output_blocks.")
"""sd-scripts takes layers of transformers, resnets and samplers alone, and those are in blocks."""
FIRST_CONVOLUTION = "input_blocks.0.0"
"""Is in a block by its name only."""


@dataclass
class ExtractedLoRA:
    """A LoRA's tensors, and how much of the difference they keep."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    rank: int = 0
    layers: list[str] = field(default_factory=list)
    """Names of the layers in it, with dots, as the file's names have them."""
    kept: float = 0.0
    """Sum of the squared singular values that are kept."""
    total: float = 0.0
    """Squared Frobenius norm of the whole difference, biases and norms included."""
    dropped: int = 0
    """Number of biases, norms and tokens that differ; a LoRA holds layers' matrices only."""

    @property
    def share(self) -> float:
        """Share of the difference that is kept, 0 to 1; 1 where there is no difference."""
        return self.kept / self.total if self.total else 1.0


def extract_lora(
    weights: Mapping[str, Tensor],
    base: Mapping[str, Tensor],
    rank: int,
    dtype: torch.dtype,
    names: LoRANames | Literal["transformer"] = "diffusers",
) -> ExtractedLoRA:
    """The LoRA of at most `rank` that brings `base` nearest to `weights`, matrix by matrix.

    Every matrix gets the same rank, padded with zeros: diffusers 0.42 ignores the alpha of
    attention layers and uses the first layer's. `names`: those of a UNet's layers; `transformer`
    writes diffusers' own for one, with that prefix.
    """
    rank = min(rank, max(min(w.flatten(1).shape) for w in weights.values() if w.ndim > 1))
    lora = ExtractedLoRA(rank=rank)
    original = unet_names(weights.keys()) if names == "kohya" else {}
    for name, weight in weights.items():
        device = "cuda" if torch.cuda.is_available() else "cpu"
        delta = weight.to(device, torch.float32) - base[name].to(device, torch.float32)
        size = float(delta.double().square().sum())
        lora.total += size
        if not size:
            continue
        if delta.ndim < 2 or not name.endswith(".weight"):
            lora.dropped += 1
            continue
        down, up, kept = low_rank(delta, rank)
        lora.kept += kept
        if delta.ndim == 4:
            down, up = down.reshape(rank, *delta.shape[1:]), up[:, :, None, None]
        module = original.get(name, name).removesuffix(".weight")
        if names == "transformer":
            for letter, matrix in (("A", down), ("B", up)):
                key = f"transformer.{module}.lora_{letter}.weight"
                lora.tensors[key] = matrix.to("cpu", dtype).contiguous()
            continue
        module = ORIGINAL_NAMES.get(module, module)
        lora.layers.append(module)
        key = "lora_unet_" + module.replace(".", "_")
        lora.tensors[f"{key}.lora_down.weight"] = down.to("cpu", dtype).contiguous()
        lora.tensors[f"{key}.lora_up.weight"] = up.to("cpu", dtype).contiguous()
        lora.tensors[f"{key}.alpha"] = torch.tensor(float(rank), dtype=dtype)
    return lora


def outside_blocks(lora: ExtractedLoRA) -> list[str]:
    """Layers with kohya's names that kohya's own tools leave out."""
    return [
        name
        for name in lora.layers
        if not name.startswith(KOHYA_BLOCKS) or name == FIRST_CONVOLUTION
    ]


def kohya_metadata(lora: ExtractedLoRA) -> dict[str, str]:
    """What sd-scripts writes into a LoRA's file, as far as its tools read it."""
    return {
        "ss_v2": "False",
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(float(lora.rank)),
    }

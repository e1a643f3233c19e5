"""The Z-Image family: its classes, and the sizes of published models.

Source of the sizes: the models' repositories, and the class's defaults. Needs neither torch nor
diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit_diffusers.flow.family import (
    QWEN3_4B,
    VAE_16,
    Blocks,
    Configs,
    Family,
    OriginalNames,
    changed,
)

PATCH = 2
"""Latent cells a side of a token."""

_SIZES: Configs = {
    "transformer": {
        "all_patch_size": (PATCH,),
        "all_f_patch_size": (1,),
        "in_channels": 16,
        "dim": 3840,
        "n_layers": 30,
        "n_refiner_layers": 2,
        "n_heads": 30,
        "n_kv_heads": 30,
        "cap_feat_dim": 2560,
        "axes_dims": (32, 48, 48),
        "axes_lens": (1536, 512, 512),
    },
    "vae": {**VAE_16, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    "text_encoder": QWEN3_4B,
    "scheduler": {"num_train_timesteps": 1000, "shift": 6.0},
}
_TURBO = changed(_SIZES, "scheduler", shift=3.0)


def _blocks(config: Mapping[str, Any]) -> Blocks:
    return Blocks(int(config["dim"]), int(config["n_layers"]), PATCH)


_STACKS = ("noise_refiner.*.", "context_refiner.*.", "layers.*.")
_ORIGINAL = OriginalNames(
    renamed={"all_x_embedder.2-1": "x_embedder", "all_final_layer.2-1": "final_layer"}
    | {
        f"{stack}attention.{here}": f"{stack}attention.{there}"
        for stack in _STACKS
        for here, there in {"norm_q": "q_norm", "norm_k": "k_norm", "to_out.0": "out"}.items()
    },
    fused={
        (f"{stack}attention.to_q", f"{stack}attention.to_k", f"{stack}attention.to_v"): (
            f"{stack}attention.qkv"
        )
        for stack in _STACKS
    },
)


Z_IMAGE = Family(
    name="Z-Image",
    type="z-image",
    pipeline="ZImagePipeline",
    parts={
        "transformer": ("diffusers", "ZImageTransformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "text_encoder": ("transformers", "Qwen3Model"),
    },
    markers=(
        ("noise_refiner.0.attention.to_q.weight",),
        ("noise_refiner.0.attention.qkv.weight", "cap_embedder.1.weight"),
    ),
    lora_targets=(
        *("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0"),
        *("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    ),
    blocks=_blocks,
    original=_ORIGINAL,
    sizes={"Tongyi-MAI/Z-Image": _SIZES, "Tongyi-MAI/Z-Image-Turbo": _TURBO},
)

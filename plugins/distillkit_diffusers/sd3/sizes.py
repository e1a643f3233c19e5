"""What a model is loaded from, and what its configs say of it. Needs neither torch nor diffusers.

A model that is no folder here (a hub id) is taken to have the sizes of Stable Diffusion 3.5 medium,
whose configs are these; source: its repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillkit_diffusers.io.hub import Asset

PIPELINE = "StableDiffusion3Pipeline"
MEDIUM = "stabilityai/stable-diffusion-3.5-medium"
LARGE = ("stabilityai/stable-diffusion-3.5-large", "stabilityai/stable-diffusion-3.5-large-turbo")
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")

_CLIP = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 2}
SIZES: dict[str, dict[str, Any]] = {
    "transformer": {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": 24,
        "num_attention_heads": 24,
        "attention_head_dim": 64,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 1536,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    },
    "vae": {
        "sample_size": 1024,
        "latent_channels": 16,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
    "text_encoder": {
        **_CLIP,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "text_encoder_2": {
        **_CLIP,
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
        "hidden_act": "gelu",
    },
    "text_encoder_3": {
        "vocab_size": 32128,
        "d_model": 4096,
        "d_ff": 10240,
        "d_kv": 64,
        "num_layers": 24,
        "num_heads": 64,
        "feed_forward_proj": "gated-gelu",
    },
    "scheduler": {"num_train_timesteps": 1000, "shift": 3.0},
}
_LARGER = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "dual_attention_layers": (),
}


def teacher_assets(
    model: str, variant: str | None, transformer: str | None, lora: str | None
) -> list[Asset]:
    """What a teacher is loaded from; arguments as in `SD3TeacherConfig`."""
    assets = [Asset("teacher.model", model, "pipeline", variant, PIPELINE)]
    assets += [Asset("teacher.transformer", transformer, "file")] if transformer else []
    assets += [Asset("teacher.lora", lora, "file")] if lora else []
    return assets


def configs_of(model: str | Path) -> dict[str, dict[str, Any]]:
    """The config of each part: the folder's, or those that a published model is known to have."""
    folder = Path(model).expanduser()
    if (folder / "transformer" / "config.json").is_file():
        found = {name: _read(folder / name / "config.json") for name in PARTS}
        found["scheduler"] = _read(folder / "scheduler" / "scheduler_config.json")
        return {name: config for name, config in found.items() if config}
    if str(model) in LARGE:
        return SIZES | {"transformer": SIZES["transformer"] | _LARGER}
    return SIZES


def is_assumed(model: str) -> bool:
    """Whether nothing here tells the model's sizes."""
    folder = Path(model).expanduser() / "transformer" / "config.json"
    return not folder.is_file() and model not in (MEDIUM, *LARGE)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

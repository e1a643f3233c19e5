"""The FLUX.2 family (klein): its classes, and the sizes of published models.

Source of the sizes: the models' repositories and code (black-forest-labs/flux2). Needs neither
torch nor diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit_diffusers.flow.family import QWEN3_4B, Blocks, Configs, Family

_TRANSFORMER: Mapping[str, Any] = {
    "patch_size": 1,
    "in_channels": 128,
    "num_layers": 5,
    "num_single_layers": 20,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
_4B: Configs = {
    "transformer": _TRANSFORMER,
    "vae": {},
    "text_encoder": QWEN3_4B,
    "scheduler": {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True},
}
_9B: Configs = {
    **_4B,
    "transformer": {
        **_TRANSFORMER,
        "num_layers": 8,
        "num_single_layers": 24,
        "num_attention_heads": 32,
        "joint_attention_dim": 12288,
    },
    # Qwen/Qwen3-8B.
    "text_encoder": {
        **QWEN3_4B,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "tie_word_embeddings": False,
    },
}
DISTILLED = ("black-forest-labs/FLUX.2-klein-4B", "black-forest-labs/FLUX.2-klein-9B")
"""Published models that were distilled with their guidance: none is added to them."""


def _blocks(config: Mapping[str, Any]) -> Blocks:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return Blocks(width, config["num_layers"] + config["num_single_layers"], 1)


FLUX2 = Family(
    name="FLUX.2",
    type="flux2",
    pipeline="Flux2KleinPipeline",
    parts={
        "transformer": ("diffusers", "Flux2Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKLFlux2"),
        "text_encoder": ("transformers", "Qwen3ForCausalLM"),
    },
    markers=(
        ("double_stream_modulation_img.linear.weight",),
        ("double_stream_modulation_img.lin.weight",),
    ),
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out"),
        *("attn.to_qkv_mlp_proj", "attn.to_out"),
    ),
    blocks=_blocks,
    sizes={
        "black-forest-labs/FLUX.2-klein-base-4B": _4B,
        "black-forest-labs/FLUX.2-klein-base-9B": _9B,
        "black-forest-labs/FLUX.2-klein-4B": _4B,
        "black-forest-labs/FLUX.2-klein-9B": _9B,
    },
)

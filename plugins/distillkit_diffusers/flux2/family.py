"""The FLUX.2 family (klein): its classes, and the sizes of published models.

Source of the sizes: the models' repositories and code (black-forest-labs/flux2). Needs neither
torch nor diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit_diffusers.flow.family import QWEN3_4B, Blocks, Configs, Family, OriginalNames

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


_TIME = "time_guidance_embed"
_DOUBLE, _SINGLE = "transformer_blocks.*.", "single_transformer_blocks.*."
_ORIGINAL = OriginalNames(
    renamed={
        "x_embedder": "img_in",
        "context_embedder": "txt_in",
        f"{_TIME}.timestep_embedder.linear_1": "time_in.in_layer",
        f"{_TIME}.timestep_embedder.linear_2": "time_in.out_layer",
        f"{_TIME}.guidance_embedder.linear_1": "guidance_in.in_layer",
        f"{_TIME}.guidance_embedder.linear_2": "guidance_in.out_layer",
        "double_stream_modulation_img.linear": "double_stream_modulation_img.lin",
        "double_stream_modulation_txt.linear": "double_stream_modulation_txt.lin",
        "single_stream_modulation.linear": "single_stream_modulation.lin",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        "proj_out": "final_layer.linear",
    }
    | {
        _DOUBLE + here: "double_blocks.*." + there
        for here, there in {
            "attn.norm_q.weight": "img_attn.norm.query_norm.scale",
            "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
            "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
            "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale",
            "attn.to_out.0": "img_attn.proj",
            "attn.to_add_out": "txt_attn.proj",
            "ff.linear_in": "img_mlp.0",
            "ff.linear_out": "img_mlp.2",
            "ff_context.linear_in": "txt_mlp.0",
            "ff_context.linear_out": "txt_mlp.2",
        }.items()
    }
    | {
        _SINGLE + here: "single_blocks.*." + there
        for here, there in {
            "attn.norm_q.weight": "norm.query_norm.scale",
            "attn.norm_k.weight": "norm.key_norm.scale",
            "attn.to_qkv_mlp_proj": "linear1",
            "attn.to_out": "linear2",
        }.items()
    },
    fused={
        (f"{_DOUBLE}attn.to_q", f"{_DOUBLE}attn.to_k", f"{_DOUBLE}attn.to_v"): (
            "double_blocks.*.img_attn.qkv"
        ),
        (f"{_DOUBLE}attn.add_q_proj", f"{_DOUBLE}attn.add_k_proj", f"{_DOUBLE}attn.add_v_proj"): (
            "double_blocks.*.txt_attn.qkv"
        ),
    },
    swapped=("norm_out.linear",),
)


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
    original=_ORIGINAL,
    sizes={
        "black-forest-labs/FLUX.2-klein-base-4B": _4B,
        "black-forest-labs/FLUX.2-klein-base-9B": _9B,
        "black-forest-labs/FLUX.2-klein-4B": _4B,
        "black-forest-labs/FLUX.2-klein-9B": _9B,
    },
)

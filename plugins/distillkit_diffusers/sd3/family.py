"""The Stable Diffusion 3 family: its classes, and the sizes of published models.

Source of the sizes: the models' repositories. Needs neither torch nor diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit_diffusers.flow.family import VAE_16, Blocks, Configs, Family, OriginalNames, changed

_CLIP = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 2}
_MEDIUM: Configs = {
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
    "vae": {**VAE_16, "scaling_factor": 1.5305, "shift_factor": 0.0609},
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
_LARGE = changed(
    _MEDIUM,
    "transformer",
    num_layers=38,
    num_attention_heads=38,
    caption_projection_dim=2432,
    pos_embed_max_size=192,
    dual_attention_layers=(),
)


def _blocks(config: Mapping[str, Any]) -> Blocks:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    depth, patch = int(config["num_layers"]), int(config["patch_size"])
    return Blocks(width, depth, patch, pooled=int(config["pooled_projection_dim"]))


_HERE, _THERE = "transformer_blocks.*.", "joint_blocks.*."
_ORIGINAL = OriginalNames(
    renamed={
        "pos_embed.pos_embed": "pos_embed",
        "pos_embed.proj": "x_embedder.proj",
        "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
        "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
        "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
        "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
        "norm_out.linear": "final_layer.adaLN_modulation.1",
        "proj_out": "final_layer.linear",
    }
    | {
        _HERE + here: _THERE + there
        for here, there in {
            "attn.norm_q": "x_block.attn.ln_q",
            "attn.norm_k": "x_block.attn.ln_k",
            "attn.norm_added_q": "context_block.attn.ln_q",
            "attn.norm_added_k": "context_block.attn.ln_k",
            "attn.to_out.0": "x_block.attn.proj",
            "attn.to_add_out": "context_block.attn.proj",
            "attn2.norm_q": "x_block.attn2.ln_q",
            "attn2.norm_k": "x_block.attn2.ln_k",
            "attn2.to_out.0": "x_block.attn2.proj",
            "norm1.linear": "x_block.adaLN_modulation.1",
            "norm1_context.linear": "context_block.adaLN_modulation.1",
            "ff.net.0.proj": "x_block.mlp.fc1",
            "ff.net.2": "x_block.mlp.fc2",
            "ff_context.net.0.proj": "context_block.mlp.fc1",
            "ff_context.net.2": "context_block.mlp.fc2",
        }.items()
    },
    fused={
        (f"{_HERE}attn.to_q", f"{_HERE}attn.to_k", f"{_HERE}attn.to_v"): (
            f"{_THERE}x_block.attn.qkv"
        ),
        (f"{_HERE}attn.add_q_proj", f"{_HERE}attn.add_k_proj", f"{_HERE}attn.add_v_proj"): (
            f"{_THERE}context_block.attn.qkv"
        ),
        (f"{_HERE}attn2.to_q", f"{_HERE}attn2.to_k", f"{_HERE}attn2.to_v"): (
            f"{_THERE}x_block.attn2.qkv"
        ),
    },
    swapped=("norm_out.linear", "transformer_blocks.$.norm1_context.linear"),
)


SD3 = Family(
    name="Stable Diffusion 3",
    type="sd3",
    pipeline="StableDiffusion3Pipeline",
    parts={
        "transformer": ("diffusers", "SD3Transformer2DModel"),
        "vae": ("diffusers", "AutoencoderKL"),
        "text_encoder": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
        "text_encoder_3": ("transformers", "T5EncoderModel"),
    },
    markers=(
        ("pos_embed.proj.weight", "transformer_blocks.0.norm1_context.linear.weight"),
        ("joint_blocks.0.x_block.attn.qkv.weight",),
    ),
    lora_targets=(
        *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
        *("ff.net.0.proj", "ff.net.2"),
    ),
    blocks=_blocks,
    original=_ORIGINAL,
    sizes={
        "stabilityai/stable-diffusion-3.5-medium": _MEDIUM,
        "stabilityai/stable-diffusion-3.5-large": _LARGE,
        "stabilityai/stable-diffusion-3.5-large-turbo": _LARGE,
    },
)

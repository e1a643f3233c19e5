"""A random StableDiffusion3Pipeline of tiny networks: 16x16 latents, 64x64 pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.distillkit_diffusers.tiny import clip_tokenizer, text_encoder

SIDE, CHANNELS, WIDTH, T5_TOKENS = 8, 16, 24, 12
"""Latent cells a side, latent channels, units of T5 and so of the context; tokens of T5."""
CLIP_WIDTH = 8


def _t5() -> tuple[Any, Any]:
    """T5's encoder, and a tokenizer of letters."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    letters = [(chr(c), -1.0) for c in range(ord("a"), ord("z") + 1)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), *letters]
    tokenizer = T5TokenizerFast(vocab=vocab, extra_ids=0)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=3
    )
    return T5EncoderModel(config), tokenizer


def build_pipeline() -> Any:
    """The pipeline with random weights; dual attention and query norms as in SD3.5 medium."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    transformer = SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=2,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        num_layers=3,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * CLIP_WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    vae = AutoencoderKL(
        sample_size=4 * SIDE,
        latent_channels=CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    t5, t5_tokenizer = _t5()
    tokenizer, tokenizer_2 = clip_tokenizer("<|endoftext|>"), clip_tokenizer("!")
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae,
        text_encoder=text_encoder(tokenizer, CLIP_WIDTH, CLIP_WIDTH),
        tokenizer=tokenizer,
        text_encoder_2=text_encoder(tokenizer_2, CLIP_WIDTH, CLIP_WIDTH),
        tokenizer_2=tokenizer_2,
        text_encoder_3=t5,
        tokenizer_3=t5_tokenizer,
    )


def stock_pipeline(folder: Path) -> Any:
    """The folder as diffusers alone loads it."""
    from diffusers import StableDiffusion3Pipeline

    pipe = StableDiffusion3Pipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def noise(count: int, key: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(key)
    return torch.randn(count, CHANNELS, SIDE, SIDE, generator=generator)

"""The teacher's networks: SDXL's classes and block pattern, small enough for a laptop's CPU.

Legend: N samples, L = 20 tokens, E = 64 hidden units a text encoder, D = 2E = 128 context units.
"""

from __future__ import annotations

import json
from typing import Any

from distillkit_shapes.scenes import vocabulary

TOKENS = 20
"""Tokens of a caption, padding included."""
HIDDEN = 64
"""Hidden units of a text encoder."""
LATENT_SIDE = 16
"""Side of the latents, in cells of 4x4 pixels."""


def tokenizer(pad: str) -> Any:
    """A CLIPTokenizer in which every word of the captions is one token; `pad` is its padding.

    Its merges are trained on the vocabulary itself, until each word is one token.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    start, end = "<|startoftext|>", "<|endoftext|>"
    # Byte-pair merges in the format of CLIP, whose words end in </w>.
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        min_frequency=1,
        special_tokens=["!"],
        initial_alphabet=letters,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(vocabulary())], trainer)
    # Start and end come last in the vocabulary, as in CLIP's.
    vocab: dict[str, int] = dict(bpe.get_vocab())
    vocab |= {start: len(vocab), end: len(vocab) + 1}
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    return CLIPTokenizer(
        vocab=vocab,
        merges=merges,
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        unk_token=end,
        model_max_length=TOKENS,
    )


def text_encoder(tokenizer: Any, projected: bool) -> Any:
    """A CLIPTextModel, or with `projected` a CLIPTextModelWithProjection, of random weights."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        projection_dim=HIDDEN,
        hidden_act="gelu" if projected else "quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def vae() -> Any:
    """An AutoencoderKL from 64x64x3 in [-1, 1] to 16x16x4 latents, random weights."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 16, 48),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def unet() -> Any:
    """A UNet2DConditionModel with SDXL's block pattern and ten feature levels, random weights."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=(32, 64, 128),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=(2, 4, 8),
        cross_attention_dim=2 * HIDDEN,
        use_linear_projection=True,
        norm_num_groups=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=HIDDEN + 6 * 32,
    )


def scheduler() -> Any:
    """SDXL's noise schedule, sampled by DPM-Solver++ (2M) with trailing spacing."""
    from diffusers import DPMSolverMultistepScheduler

    return DPMSolverMultistepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="trailing",
        prediction_type="epsilon",
    )


def pipeline(parts: dict[str, Any]) -> Any:
    """The StableDiffusionXLPipeline of the parts, named as the pipeline's folders are."""
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        **parts, force_zeros_for_empty_prompt=True, add_watermarker=False
    )


def mmdit() -> Any:
    """A SD3Transformer2DModel on the same latents, in patches of 2 by 2, random weights."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=LATENT_SIDE,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=10,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=2 * HIDDEN,
        caption_projection_dim=128,
        pooled_projection_dim=2 * HIDDEN,
        pos_embed_max_size=LATENT_SIDE // 2,
        qk_norm="rms_norm",
    )


def flow_scheduler() -> Any:
    """Flow matching's schedule; pictures this small need no shift towards the noise."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=1.0)


def flow_pipeline(parts: dict[str, Any], transformer: Any) -> Any:
    """The StableDiffusion3Pipeline of the SDXL-class teacher's parts and a transformer, no T5."""
    from diffusers import StableDiffusion3Pipeline

    parts["vae"].register_to_config(
        shift_factor=0.0
    )  # SD3's VAEs have one; these latents need none
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=flow_scheduler(),
        vae=parts["vae"],
        text_encoder=with_projection(parts["text_encoder"]),
        tokenizer=parts["tokenizer"],
        text_encoder_2=parts["text_encoder_2"],
        tokenizer_2=parts["tokenizer_2"],
        text_encoder_3=None,
        tokenizer_3=None,
    )


def with_projection(encoder: Any) -> Any:
    """The CLIPTextModel as the CLIPTextModelWithProjection that SD3 asks for: the identity."""
    import torch
    from transformers import CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection(encoder.config)
    own = {
        f"text_model.{name.removeprefix('text_model.')}": w
        for name, w in encoder.state_dict().items()
    }
    model.load_state_dict({**own, "text_projection.weight": torch.eye(HIDDEN)})
    return model.eval().requires_grad_(False)

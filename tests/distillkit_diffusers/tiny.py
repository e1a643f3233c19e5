"""A random pipeline of SDXL's classes and block pattern, 32x32 pictures; and shared helpers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

RECIPE = """\
prompts: {{type: list, prompts: [a ring]}}
teacher: {{type: sdxl, model: {model}, dtype: float32}}
student: {{type: unet, timestep_shift: 250}}
losses: [{{type: regression}}]
refinement: {{type: bottom-up, stages: {{1: 2}}}}
optim: {{student: {{lr: 1.0e-4}}}}
"""
"""A run whose only stage is `1-step`, on the pipeline in `model`."""
PROMPTS = ["a red ring", "two blue bars"]
UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
TOKENS, SIDE, VAE_FACTOR = 16, 8, 4
HIDDEN, HIDDEN_2 = 16, 24
"""Widths of the text encoders; diffusers' single-file reader tells them apart by these."""


def clip_tokenizer(pad: str) -> Any:
    """Letters are tokens; no merges."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    names = ["!", *letters, *(f"{a}</w>" for a in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={name: i for i, name in enumerate(names)},
        merges=[],
        pad_token=pad,
        model_max_length=TOKENS,
    )


def text_encoder(tokenizer: Any, width: int, projection: int, projected: bool = True) -> Any:
    """CLIP's, of two layers; with a projection, or without."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=projection,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)


def _unet() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=SIDE,
        block_out_channels=(8, 16, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        cross_attention_dim=HIDDEN + HIDDEN_2,
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=HIDDEN_2 + 6 * 8,
    )


def build_pipeline() -> Any:
    """The pipeline with random weights; the scheduler is the one of SDXL base."""
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline

    tokenizer, tokenizer_2 = clip_tokenizer("<|endoftext|>"), clip_tokenizer("!")
    vae = AutoencoderKL(
        sample_size=SIDE * VAE_FACTOR,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.13025,
    )
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing="leading",
    )
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=text_encoder(tokenizer, HIDDEN, HIDDEN_2, projected=False),
        text_encoder_2=text_encoder(tokenizer_2, HIDDEN_2, HIDDEN_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_unet(),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def build_shallow_pipeline() -> Any:
    """The pipeline with a UNet of fewer layers."""
    from diffusers import UNet2DConditionModel

    pipeline = build_pipeline()
    layers = {"block_out_channels": (8, 16), "layers_per_block": 1}
    layers |= {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    layers |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    layers |= {"transformer_layers_per_block": 1, "attention_head_dim": (1, 2)}
    unet = UNet2DConditionModel.from_config({**pipeline.unet.config, **layers})
    pipeline.register_modules(unet=unet)
    return pipeline


def save(pipeline: Callable[[], Any], folder: Path) -> Path:
    """A pipeline of weights that are random and always the same."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline().save_pretrained(folder)
    return folder


def noise(count: int, seed: int = 0) -> torch.Tensor:
    """x_T of `count` pictures, (B, 4, 8, 8)."""
    return torch.randn(count, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def perturbed(student: Any, matrices_only: bool = False) -> Any:
    """The student, with weights a little off the teacher's."""
    drawing = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in student.module.parameters():
            if p.ndim > 1 or not matrices_only:
                p.add_(0.02 * torch.randn(p.shape, generator=drawing))
    return student


def stock_pipeline(folder: Path) -> Any:
    """The folder as diffusers alone loads it."""
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe

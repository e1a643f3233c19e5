"""A random pipeline of SDXL's classes and block pattern, 32x32 pictures, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

TOKENS, SIDE, VAE_FACTOR = 16, 8, 4
HIDDEN, HIDDEN_2 = 16, 24
"""Widths of the text encoders; diffusers' single-file reader tells them apart by these."""


def _tokenizer(pad: str) -> Any:
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


def _text_encoder(words: Any, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    width = HIDDEN_2 if projected else HIDDEN
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        projection_dim=HIDDEN_2,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
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

    words, words_2 = _tokenizer("<|endoftext|>"), _tokenizer("!")
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
        text_encoder=_text_encoder(words, False),
        text_encoder_2=_text_encoder(words_2, True),
        tokenizer=words,
        tokenizer_2=words_2,
        unet=_unet(),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random StableDiffusionXLPipeline."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "tiny-sdxl"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def teacher(tiny_sdxl: Path) -> Any:
    """The tiny pipeline as a teacher, 8 DDIM steps. Shared: leave it as it is."""
    from distillkit_diffusers.loading import load_teacher

    return load_teacher(tiny_sdxl)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and nothing in the hub's cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))


def noise(count: int, seed: int = 0) -> torch.Tensor:
    """x_T of `count` pictures, (B, 4, 8, 8)."""
    return torch.randn(count, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))

"""Random ZImagePipeline and Flux2KleinPipeline of tiny networks: 32x32 pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distillkit_diffusers.flow.configs import FlowStudentConfig, FlowTeacherConfig
from distillkit_diffusers.flux2.configs import Flux2StudentConfig, Flux2TeacherConfig
from distillkit_diffusers.z_image.configs import ZImageStudentConfig, ZImageTeacherConfig

PIXELS, TOKENS = 32, 48
"""Pictures' sides; tokens of a prompt."""
PROMPTS = ["a red ring", "two blue bars on a wide green field of grass"]
"""The longer one is more than 32 tokens long, to which Z-Image pads: so their lengths differ."""
CHAT = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} a{% endif %}{% if enable_thinking %} b{% endif %}"
)


@dataclass(frozen=True)
class Tiny:
    """A family, and what its tiny pipeline is."""

    teacher: type[FlowTeacherConfig]
    student: type[FlowStudentConfig]
    latent_shape: tuple[int, int, int]
    blocks: int
    """How many critics may tap."""

    def noise(self, count: int, key: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(key)
        return torch.randn(count, *self.latent_shape, generator=generator)


KINDS = {
    "z-image": Tiny(ZImageTeacherConfig, ZImageStudentConfig, (16, 8, 8), 3),
    "flux2": Tiny(Flux2TeacherConfig, Flux2StudentConfig, (16, 4, 4), 4),
}


def _qwen(layers: int) -> dict[str, Any]:
    """Qwen3 as a text encoder, and a tokenizer of letters."""
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    names = ["<|endoftext|>", "\u0120", *letters]
    tokenizer = Qwen2TokenizerFast(vocab={n: i for i, n in enumerate(names)}, merges=[])
    tokenizer.chat_template = CHAT
    config = Qwen3Config(
        vocab_size=len(names),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return {"text_encoder": Qwen3ForCausalLM(config), "tokenizer": tokenizer}


VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def _z_image() -> Any:
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        ZImagePipeline,
        ZImageTransformer2DModel,
    )

    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=16,
        n_layers=3,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=8,
        axes_dims=[4, 2, 2],
        axes_lens=[128, 16, 16],
    )
    for pad in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.normal_(pad)  # zeros would hide a picture's padding
    vae = AutoencoderKL(
        **VAE,
        latent_channels=16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return ZImagePipeline(scheduler, vae, **_qwen(3), transformer=transformer)


def _flux2() -> Any:
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )

    transformer = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=24,
        timestep_guidance_channels=16,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=False,
    )
    vae = AutoencoderKLFlux2(**VAE, latent_channels=4)
    torch.nn.init.normal_(vae.bn.running_mean)
    torch.nn.init.uniform_(vae.bn.running_var, 0.5, 2)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    # The pipeline takes the outputs of layers 9, 18 and 27.
    return Flux2KleinPipeline(scheduler, vae, **_qwen(28), transformer=transformer)


def build_pipeline(kind: str) -> Any:
    """The family's pipeline with random weights."""
    return _z_image() if kind == "z-image" else _flux2()


def stock_pipeline(folder: Path) -> Any:
    """The folder as diffusers alone loads it."""
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe: Any, x_T: torch.Tensor, output: str, **call: Any) -> torch.Tensor:
    """Pictures or latents of stock diffusers; FLUX.2's latents as its network knows them."""
    call = {"height": PIXELS, "width": PIXELS, "max_sequence_length": TOKENS, **call}
    drawn: torch.Tensor = pipe(
        prompt=list(PROMPTS), latents=x_T.clone(), output_type=output, **call
    ).images
    if output == "latent" and hasattr(pipe.vae, "bn"):
        statistics = pipe.vae.bn.running_mean, pipe.vae.bn.running_var
        mean, variance = (s.view(1, -1, 1, 1) for s in statistics)
        patches = torch.nn.functional.pixel_unshuffle(drawn, 2)
        return (patches - mean) / (variance + pipe.vae.config.batch_norm_eps).sqrt()
    return drawn

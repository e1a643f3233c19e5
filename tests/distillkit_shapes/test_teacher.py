"""The shipped teacher is a genuine SDXL pipeline, small, with ten feature levels."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillkit_shapes import architecture
from distillkit_shapes.scenes import sample_scenes, vocabulary
from distillkit_shapes.teacher import TEACHER

MEGABYTE = 1_000_000
BOUND = 0.88


@pytest.fixture(scope="module")
def pipe() -> Any:
    from diffusers import StableDiffusionXLPipeline

    pipe = StableDiffusionXLPipeline.from_pretrained(
        TEACHER, dtype=torch.float32, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_folder_is_small_and_holds_nothing_pickled() -> None:
    students = ("one_step", "one_step_plateau", "few_step", "few_step_32")
    folders = (TEACHER, *(TEACHER.parent / name for name in students))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= 67 * MEGABYTE
    assert not [
        path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text()
    ]


def test_unet_has_ten_feature_levels(pipe: Any) -> None:
    """conv_in, eight down residuals and the middle, at 16, 16, 16, 8, 8, 8, 4, 4, 4, 4."""
    sides: list[int] = []
    unet = pipe.unet
    taps = [unet.conv_in, *(r for b in unet.down_blocks for r in b.resnets)]
    taps += [b.downsamplers[0] for b in unet.down_blocks if b.downsamplers] + [unet.mid_block]
    hooks = [t.register_forward_hook(lambda m, i, o: sides.append(o.shape[-1])) for t in taps]
    added = {"text_embeds": torch.zeros(1, 64), "time_ids": torch.zeros(1, 6)}
    with torch.no_grad():
        unet(torch.zeros(1, 4, 16, 16), 5, torch.zeros(1, 20, 128), added_cond_kwargs=added)
    for hook in hooks:
        hook.remove()
    assert sides == [16, 16, 16, 8, 8, 8, 4, 4, 4, 4]


def test_schedule_is_sdxls_with_trailing_ddim(pipe: Any) -> None:
    pipe.scheduler.set_timesteps(8)
    assert pipe.scheduler.timesteps.tolist() == [999, 874, 749, 624, 499, 374, 249, 124]
    assert pipe.scheduler.config.prediction_type == "epsilon"
    assert float(pipe.scheduler.alphas_cumprod[999]) == pytest.approx(0.00466, abs=1e-5)


def test_every_word_is_one_token(pipe: Any) -> None:
    for tokenizer in (pipe.tokenizer, pipe.tokenizer_2):
        assert [len(tokenizer.tokenize(word)) for word in vocabulary()] == [1] * len(vocabulary())
        assert tokenizer.model_max_length == architecture.TOKENS
    assert pipe.tokenizer_2.pad_token == "!"
    assert pipe.tokenizer_2.pad_token_id == 0


def test_prompts_give_two_hidden_halves_and_zeros_for_nothing(pipe: Any) -> None:
    with torch.no_grad():
        context, null, pooled, null_pooled = pipe.encode_prompt(
            "a red ring on a sand background", do_classifier_free_guidance=True
        )
    assert context.shape == (1, architecture.TOKENS, 2 * architecture.HIDDEN)
    assert pooled.shape == (1, architecture.HIDDEN)
    assert not null.any()
    assert not null_pooled.any()


def test_autoencoder_keeps_pictures(pipe: Any) -> None:
    """Latents have a unit deviation; the oracle reads at least 0.90 of decoded true pictures."""
    from distillkit_shapes.oracle import agreement
    from distillkit_shapes.pictures import render

    source = torch.Generator().manual_seed(77)
    codes_NA = sample_scenes(100, source)
    with torch.no_grad():
        z = pipe.vae.encode(render(codes_NA, source) * 2 - 1).latent_dist.mean
        x_NCHW = pipe.vae.decode(z).sample / 2 + 0.5
    assert float(z.std() * pipe.vae.config.scaling_factor) == pytest.approx(1.0, abs=0.05)
    assert agreement(x_NCHW.clamp(0, 1), codes_NA).captions >= 0.90


@pytest.mark.slow
def test_teacher_draws_what_its_captions_say(pipe: Any) -> None:
    """64 captions at 8 steps and guidance 2. The shipped weights follow 95 % of 1,000."""
    from distillkit_shapes.oracle import agreement
    from distillkit_shapes.train.evaluate import sample

    codes_NA = sample_scenes(64, torch.Generator().manual_seed(78))
    seen = agreement(sample(pipe, codes_NA, steps=8, guidance=2.0, seed=79), codes_NA)
    assert seen.captions >= BOUND

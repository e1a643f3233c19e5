"""The shipped transformer: a genuine Stable Diffusion 3 folder, named by its package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distillkit.exchange import packaged_path
from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from distillkit_shapes.scenes import sample_scenes
from distillkit_shapes.teacher import TEACHER
from distillkit_shapes.train.evaluate import load_pipeline, sample

NAME = "package:distillkit_shapes/teacher_dit"
CAPTIONS = ["a red striped ring on a sand background", "a blue star on a black background"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return packaged_path(NAME, "teacher.model")


@pytest.fixture(scope="module")
def stock(folder: Path) -> tuple[Any, dict[str, int]]:
    pipe, call = load_pipeline(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, call


def test_folder_is_small_and_holds_nothing_pickled(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert not [
        path for path in files if path.suffix == ".json" and "_name_or_path" in path.read_text()
    ]


def test_both_teachers_share_latents_and_words(folder: Path) -> None:
    """SD3 asks its first encoder for a projection, which is the identity; the rest is the same."""
    for name in ("vae/diffusion_pytorch_model", "text_encoder_2/model", "text_encoder/model"):
        own, other = (
            {key.removeprefix("text_model."): value for key, value in weights.items()}
            for weights in (load_file(at / f"{name}.safetensors") for at in (folder, TEACHER))
        )
        if name == "text_encoder/model":
            added = own.pop("text_projection.weight")
            assert torch.equal(added, torch.eye(len(added)).to(added.dtype))
        assert own.keys() == other.keys()
        assert all(torch.equal(own[key], other[key]) for key in own)


def test_a_recipe_that_names_it_draws_the_stock_pipelines_picture(
    stock: tuple[Any, dict[str, int]],
) -> None:
    pipe, call = stock
    x_T = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    expected = pipe(
        CAPTIONS, latents=x_T.clone(), output_type="pt", num_inference_steps=2, guidance_scale=3.0,
        **call,
    ).images  # fmt: skip
    options: dict[str, Any] = {"max_tokens": 1, "steps": 2, "guidance": 3.0}
    teacher = SD3TeacherConfig(model=NAME, dtype="float32", **options).build()
    x_0 = teacher.sample(x_T, teacher.encode(CAPTIONS), [])
    torch.testing.assert_close(teacher.decode(x_0), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_it_draws_what_its_captions_say(stock: tuple[Any, dict[str, int]]) -> None:
    """48 captions at the recipe's steps and guidance."""
    from distillkit_shapes.oracle import agreement

    pipe, call = stock
    codes_NA = sample_scenes(48, torch.Generator().manual_seed(78))
    seen = agreement(sample(pipe, codes_NA, steps=16, guidance=3.0, seed=79, **call), codes_NA)
    assert seen.captions >= 0.85

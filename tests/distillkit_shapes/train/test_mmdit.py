"""The transformer's training: a resumed run repeats an unbroken one; its folder is stock SD3's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from distillkit_shapes.teacher import TEACHER
from distillkit_shapes.train import mmdit
from distillkit_shapes.train.data import load_parts
from distillkit_shapes.train.evaluate import load_pipeline
from distillkit_shapes.train.latents import TEXT
from distillkit_shapes.train.text import Encoders

CAPTIONS = ["a red ring on white", "a blue star on black"]


@pytest.fixture(scope="module")
def flows() -> mmdit.FlowSet:
    """Two captions, with noise for their latents."""
    encoders = Encoders(load_parts(TEACHER, TEXT))
    z_NZhw = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    null = mmdit.conditions(encoders, encoders.ids([""]))
    found = mmdit.conditions(encoders, encoders.ids(CAPTIONS))
    return mmdit.FlowSet(z_NZhw, *found, torch.ones(2), null[0][0], null[1][0])


@pytest.fixture(scope="module")
def trained(flows: mmdit.FlowSet) -> mmdit.MMDiTState:
    return steps(mmdit.new_state(), flows, 3)


def steps(state: mmdit.MMDiTState, flows: mmdit.FlowSet, count: int) -> mmdit.MMDiTState:
    step = mmdit.new_step(state)
    for _ in range(count):
        mmdit.train_step(state, flows, step, lr=1e-2, batch=2)
    return state


def test_a_resumed_run_repeats_an_unbroken_one(
    flows: mmdit.FlowSet, trained: mmdit.MMDiTState, tmp_path: Path
) -> None:
    steps(mmdit.new_state(), flows, 1).save(tmp_path / "mmdit.pt")
    resumed = mmdit.new_state()
    resumed.load(tmp_path / "mmdit.pt")
    steps(resumed, flows, 2)
    for one, other in ((trained.network, resumed.network), (trained.ema, resumed.ema)):
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_the_folder_is_one_that_stock_diffusers_draws_from(
    flows: mmdit.FlowSet, trained: mmdit.MMDiTState, tmp_path: Path
) -> None:
    """And its conditions are those that the transformer learned with."""
    mmdit.export(trained, TEACHER, tmp_path)
    configs = [file.read_text() for file in tmp_path.rglob("*.json")]
    assert not any(str(TEACHER.parents[1]) in text for text in configs)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size < 20e6
    options: dict[str, Any] = {"max_tokens": 1, "steps": 2, "guidance": 2.0}
    teacher: Any = SD3TeacherConfig(model=str(tmp_path), dtype="float32", **options).build()
    cond = teacher.encode(CAPTIONS).tensors
    torch.testing.assert_close(cond["prompt"], flows.context_NLD)
    torch.testing.assert_close(cond["pooled"], flows.pooled_NP)

    pipe, more = load_pipeline(tmp_path)
    assert type(pipe).__name__ == "StableDiffusion3Pipeline"
    x_T = torch.randn(2, 4, 16, 16)
    call = {"num_inference_steps": 2, "guidance_scale": 2.0, **more}
    pictures = pipe(CAPTIONS, latents=x_T.clone(), output_type="pt", **call).images
    x_0 = teacher.sample(x_T, teacher.encode(CAPTIONS), [])
    torch.testing.assert_close(teacher.decode(x_0), pictures, rtol=1e-4, atol=1e-4)
    assert float(x_0.std()) > 0.1


def test_a_crop_keeps_the_places_of_its_patches() -> None:
    """Patches of 2 cells: the crop at (4, 6) of 8 cells has rows 2 to 5 and columns 3 to 6."""
    network = mmdit.new_state().network
    table = network.pos_embed.pos_embed.view(8, 8, -1)
    crop = mmdit.positions(network, 4, 6, 8)
    assert torch.equal(crop, table[2:6, 3:7].flatten(0, 1)[None])
    with mmdit.placed(network, crop):
        assert network.pos_embed.cropped_pos_embed(8, 8) is crop
    whole = network.pos_embed.cropped_pos_embed(16, 16)
    assert torch.equal(whole, mmdit.positions(network, 0, 0, 16))

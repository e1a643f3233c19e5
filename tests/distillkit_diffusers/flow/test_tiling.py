"""`vae_tiling`: decoding in tiles, in every family; encoding as without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.evaluation.rows import Row, row_identity
from distillkit.recipe.load import load_recipe
from distillkit.samples.cache import identity
from distillkit.samples.order import SampleOrder
from distillkit.samples.pairs import TeacherSamples
from distillkit_diffusers.configs import SDXLTeacherConfig
from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from tests.distillkit_diffusers.flow.tiny import KINDS, build_pipeline
from tests.distillkit_diffusers.sd3 import tiny as sd3
from tests.distillkit_diffusers.tiny import RECIPE, save
from tests.distillkit_diffusers.tiny import build_pipeline as build_sdxl


def builds(family: str) -> Any:
    return {"sdxl": build_sdxl, "sd3": sd3.build_pipeline}.get(
        family, lambda: build_pipeline(family)
    )


def teachers(family: str, folder: Path, resolution: int) -> list[Any]:
    """Without tiles, and with them; of the same weights."""
    config = {"sdxl": SDXLTeacherConfig, "sd3": SD3TeacherConfig}.get(family)
    fields = {"model": str(folder), "dtype": "float32"}
    if config is None:
        config, fields = KINDS[family].teacher, fields | {"resolution": str(resolution)}
    of = config.model_validate
    return [of(fields | {"vae_tiling": tiled}).build() for tiled in (False, True)]


@pytest.mark.parametrize(
    ("family", "side"),
    [("sdxl", 32), ("sd3", 32), ("z-image", 32), ("z-image", 48), ("flux2", 32), ("flux2", 48)],
)
def test_pictures_of_the_models_own_size_are_decoded_in_tiles(
    family: str, side: int, tmp_path: Path
) -> None:
    """Of no more than two thirds of a side, one picture at a time; 48 pixels are 12 cells, of
    which a quarter of a half is none. Latents of pictures are those without tiles, bit for bit."""
    plain, tiled = teachers(family, save(builds(family), tmp_path / "model"), side)
    shape = (2, *tiled.latent_shape)
    x_0 = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    decoded: list[torch.Size] = []
    hook = tiled.pipe.vae.decoder.register_forward_pre_hook(
        lambda _, given: decoded.append(given[0].shape)
    )
    with torch.no_grad():
        pictures, expected = tiled.decode(x_0), plain.decode(x_0)
    hook.remove()
    assert pictures.shape == expected.shape == (2, 3, side, side)
    cells = side // 4
    assert {size[0] for size in decoded} == {1}
    assert max(size[-1] for size in decoded) <= 2 * cells // 3
    assert 0 < float((pictures - expected).abs().mean()) < 0.2
    images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    for each in images.split(1):  # one at a time, as with tiles
        assert torch.equal(tiled.encode_images(each), plain.encode_images(each))
    assert tiled.pipe.vae.use_tiling


def test_tiles_change_figures_and_no_cache(tiny_sdxl: Path, tmp_path: Path) -> None:
    """What is cached are latents, sampled or encoded, which tiles leave as they are; a row's
    pictures are others. Without tiles all is named as it was before there was the field."""
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE.format(model=tiny_sdxl))
    found = {}
    for tiled in (False, True):
        recipe = load_recipe(file, [f"teacher.vae_tiling={tiled}".lower()]).recipe
        teacher = recipe.teacher.build()
        samples = TeacherSamples(teacher, SampleOrder(["a ring"], 0), "cpu")
        row = row_identity(recipe, teacher, samples, Row("teacher"), file)
        found[tiled] = identity(recipe, samples), row
    assert found[True][0] == found[False][0]
    assert found[True][1] != found[False][1]
    assert "vae_tiling" not in str(found[False])

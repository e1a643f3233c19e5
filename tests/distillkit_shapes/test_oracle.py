"""The oracle is right on true pictures, tolerant of slight harm, and rejects garbled ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from distillkit_shapes.oracle import agreement, read
from distillkit_shapes.pictures import SIDE, place_objects, render
from distillkit_shapes.scenes import codes_of, sample_scenes


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, Tensor]:
    """codes_NA and x_NCHW of 600 scenes that the oracle's numbers were not chosen on."""
    source = torch.Generator().manual_seed(4321)
    codes_NA = sample_scenes(600, source)
    return codes_NA, render(codes_NA, source)


def test_pictures_are_as_documented(world: tuple[Tensor, Tensor]) -> None:
    codes_NA, x_NCHW = world
    assert x_NCHW.shape == (600, 3, SIDE, SIDE)
    assert x_NCHW.min() >= 0
    assert x_NCHW.max() <= 1
    centre_NK2, radius_NK, present_NK = place_objects(codes_NA, torch.Generator().manual_seed(2))
    reach = ((centre_NK2 - SIDE / 2).abs().amax(-1) + 1.1 * radius_NK)[present_NK]
    assert reach.max() <= SIDE / 2


def test_true_pictures_are_read_right(world: tuple[Tensor, Tensor]) -> None:
    codes_NA, x_NCHW = world
    seen = agreement(x_NCHW, codes_NA)
    assert seen.captions >= 0.995
    assert seen.extra_objects == 0
    assert min(seen.attributes.values()) >= 0.995


def test_slight_blur_and_noise_do_not_matter(world: tuple[Tensor, Tensor]) -> None:
    codes_NA, x_NCHW = world[0][:200], world[1][:200]
    noise = torch.randn(x_NCHW.shape, generator=torch.Generator().manual_seed(3))
    assert agreement((x_NCHW + 0.03 * noise).clamp(0, 1), codes_NA).captions >= 0.98
    soft = avg_pool2d(x_NCHW, 3, stride=1, padding=1, count_include_pad=False)
    assert agreement(0.6 * x_NCHW + 0.4 * soft, codes_NA).captions >= 0.97


def test_other_captions_do_not_match(world: tuple[Tensor, Tensor]) -> None:
    codes_NA, x_NCHW = world
    assert agreement(x_NCHW[:200], codes_NA[200:400]).captions <= 0.01


@pytest.mark.parametrize("harm", ["mixed", "noise", "coarse", "torn"])
def test_garbled_pictures_fail(world: tuple[Tensor, Tensor], harm: str) -> None:
    codes_NA, x_NCHW = world[0][:200], world[1][:200]
    noise = torch.randn(x_NCHW.shape, generator=torch.Generator().manual_seed(4))
    garbled = {
        "mixed": (x_NCHW + world[1][200:400]) / 2,
        "noise": (x_NCHW + 0.3 * noise).clamp(0, 1),
        "coarse": interpolate(avg_pool2d(x_NCHW, 8), size=SIDE, mode="bilinear"),
        "torn": torch.where(torch.arange(SIDE)[:, None] % 8 < 4, x_NCHW, x_NCHW.roll(7, dims=3)),
    }[harm]
    assert agreement(garbled, codes_NA).captions <= 0.10


def test_extra_objects_are_counted() -> None:
    """Three where two are said is one too many; one where two are said is none too many."""
    said = ["a red circle on a sand background", "two red circles on a sand background"]
    one, two, three = codes_of([*said, "three red circles on a sand background"]).split(1)
    many, single = (render(codes, torch.Generator().manual_seed(0)) for codes in (three, one))
    assert read(many).objects_N.tolist() == [3]
    assert agreement(many, two).extra_objects == 1.0
    assert agreement(many, three).extra_objects == 0.0
    assert agreement(single, two).extra_objects == 0.0


def test_an_empty_picture_reads_as_nothing() -> None:
    seen = read(torch.zeros(1, 3, SIDE, SIDE) + 0.5)
    assert seen.objects_N.tolist() == [0]
    assert seen.codes_NA[0, 0] == -1
    assert seen.codes_NA[0, 3] == -1

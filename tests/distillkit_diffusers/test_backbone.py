"""The ten maps: against hooks in the UNet's own forward; gradients; sharing; window ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.errors import UserError
from distillkit.values import Condition, Window
from distillkit_diffusers.configs import SDXLTeacherConfig, UNetEncoderConfig
from distillkit_diffusers.denoiser import window_ids
from tests.distillkit_diffusers.tiny import noise


def whole(count: int, side: int = 8) -> Window:
    zeros = torch.zeros(count, dtype=torch.long)
    return Window(zeros, zeros, side, side, side, side)


def local() -> Window:
    """Two 4x4 crops of an 8x8 latent, at (row 2, column 1) and (row 4, column 0)."""
    return Window(torch.tensor([2, 4]), torch.tensor([1, 0]), 4, 4, 8, 8)


def test_features_are_what_hooks_catch_in_the_whole_unet(teacher: Any) -> None:
    unet, caught = teacher.pipe.unet, []
    hooks = [unet.conv_in.register_forward_hook(lambda m, i, out: caught.append(out))]
    hooks += [
        block.register_forward_hook(lambda m, i, out: caught.extend(out[1]))
        for block in unet.down_blocks
    ]
    hooks += [unet.mid_block.register_forward_hook(lambda m, i, out: caught.append(out))]
    x_t, t_B, cond = noise(2), torch.tensor([10, 750]), teacher.encode(["a red ring", "a star"])
    with torch.no_grad():
        teacher.denoiser(x_t, t_B, cond)
    for hook in hooks:
        hook.remove()

    backbone = UNetEncoderConfig().build(teacher)
    maps = backbone.features(x_t, t_B, cond, whole(2))
    assert len(maps) == len(caught) == 10
    for ours, theirs in zip(maps, caught, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert backbone.channels == tuple(m.shape[1] for m in maps)
    assert backbone.channels == (8, 8, 8, 8, 16, 16, 16, 32, 32, 32)


def test_gradients_reach_the_input_and_nothing_else(teacher: Any) -> None:
    backbone = UNetEncoderConfig().build(teacher)
    x_t = noise(2)[:, :, :4, :4].requires_grad_()
    maps = backbone.features(x_t, torch.tensor([250.5, 500.0]), teacher.null(2), local())
    sum(m.square().mean() for m in maps).backward()
    assert x_t.grad is not None
    assert (x_t.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    assert all(p.grad is None for module in backbone.modules() for p in module.parameters())


def test_teachers_weights_are_shared_and_up_blocks_left_out(teacher: Any) -> None:
    [encoder] = UNetEncoderConfig().build(teacher).modules()
    unet = teacher.pipe.unet
    assert encoder.conv_in.weight is unet.conv_in.weight
    names = dict(encoder.named_parameters())
    assert set(names) == {
        name
        for name, _ in unet.named_parameters()
        if not name.startswith(("up_blocks", "conv_norm_out", "conv_out"))
    }


def test_base_has_weights_of_its_own(teacher: Any, tiny_sdxl: Path) -> None:
    backbone = UNetEncoderConfig(of="base", model=str(tiny_sdxl)).build(teacher)
    [encoder] = backbone.modules()
    assert encoder.conv_in.weight is not teacher.pipe.unet.conv_in.weight
    assert not any(p.requires_grad for p in encoder.parameters())
    inputs = (noise(2), torch.tensor([10, 500]), teacher.null(2), whole(2))
    shared = UNetEncoderConfig().build(teacher)
    for a, b in zip(backbone.features(*inputs), shared.features(*inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_base_and_model_go_together() -> None:
    for fields in ({"of": "base"}, {"model": "x"}):
        with pytest.raises(ValueError, match="go together"):
            UNetEncoderConfig.model_validate(fields)


def test_window_ids_in_pixels() -> None:
    """8x8 cells of 4 pixels: original 32x32, corner (8, 4) or (16, 0), target 16x16."""
    assert window_ids(local(), 4, crop_ids=True).tolist() == [
        [32, 32, 8, 4, 16, 16],
        [32, 32, 16, 0, 16, 16],
    ]
    assert window_ids(local(), 4, crop_ids=False).tolist() == [[32, 32, 0, 0, 32, 32]] * 2


def test_where_the_crop_lies_changes_the_features(teacher: Any) -> None:
    x_t, t_B = noise(1)[:, :, :4, :4].repeat(2, 1, 1, 1), torch.tensor([10, 10])
    inputs = (x_t, t_B, teacher.null(2), local())
    crop = UNetEncoderConfig().build(teacher).features(*inputs)[-1]
    assert (crop[0] - crop[1]).abs().max() > 1e-6
    constant = UNetEncoderConfig(window_ids="constant").build(teacher).features(*inputs)[-1]
    torch.testing.assert_close(constant[0], constant[1])


@pytest.mark.parametrize(("levels", "blocks"), [(1, 0), (3, 1), (4, 1), (5, 2), (9, 3)])
def test_the_first_levels_alone_are_the_same_maps(teacher: Any, levels: int, blocks: int) -> None:
    inputs = (noise(2), torch.tensor([10, 750]), teacher.encode(["a red ring", "a star"]), whole(2))
    every = UNetEncoderConfig().build(teacher)
    few = UNetEncoderConfig(levels=levels).build(teacher)
    maps = few.features(*inputs)
    assert few.channels == every.channels[:levels]
    assert len(maps) == levels
    assert all(torch.equal(a, b) for a, b in zip(maps, every.features(*inputs), strict=False))
    [encoder] = few.modules()
    assert (len(encoder.down_blocks), encoder.mid_block) == (blocks, None)


def test_more_levels_than_there_are_is_a_sentence(teacher: Any) -> None:
    with pytest.raises(UserError, match=r"backbone.levels: 11, but the UNet has 10"):
        UNetEncoderConfig(levels=11).build(teacher)


def test_heads_that_see_the_prompt_get_the_pooled_embedding(teacher: Any) -> None:
    """Of the second text encoder; the UNet's added embedding takes it with six ids."""
    cond = teacher.encode(["a red ring", "a star"])
    backbone = UNetEncoderConfig().build(teacher)
    assert torch.equal(backbone.pooled(cond), cond.tensors["pooled"])
    assert backbone.pooled(cond).shape == (2, backbone.pooled_channels)


@torch.no_grad()
def test_what_levels_hear_is_what_changes_their_maps(teacher: Any, tiny_sdxl: Path) -> None:
    """Level 0 is a convolution of x_t; levels 1 to 3 lie before the first cross-attention."""
    config, x_t = UNetEncoderConfig(), noise(2)
    backbone, null = config.build(teacher), teacher.null(2).tensors
    cond = teacher.encode(["a red ring", "a star"]).tensors
    others = {
        "words": (10, Condition(dict(null) | {"prompt": cond["prompt"]})),
        "pooled": (10, Condition(dict(null) | {"pooled": cond["pooled"]})),
        "t": (500, Condition(null)),
    }

    def maps(t: int, shown: Condition) -> Any:
        return backbone.features(x_t, torch.tensor([t, t]), shown, whole(2))

    before = maps(10, Condition(null))
    hears = {
        what: [not torch.equal(a, b) for a, b in zip(before, maps(*other), strict=True)]
        for what, other in others.items()
    }
    assert hears["words"] == [False] * 4 + [True] * 6
    told = config.level_inputs(SDXLTeacherConfig(model=str(tiny_sdxl)))
    assert told is not None
    assert [level.prompt == "the prompt's words" for level in told] == hears["words"]
    assert [bool(level.prompt) for level in told] == hears["pooled"] == [False] + [True] * 9
    assert [level.timestep for level in told] == hears["t"]
    few = UNetEncoderConfig(levels=5).level_inputs(SDXLTeacherConfig(model=str(tiny_sdxl)))
    assert few == told[:5]

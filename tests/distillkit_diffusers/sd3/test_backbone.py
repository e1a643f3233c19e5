"""Maps of tapped blocks: against hooks in the transformer; positions of local views."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillkit.errors import UserError
from distillkit.values import Window
from distillkit_diffusers.flow.dit_config import DiTConfig
from distillkit_diffusers.flow.family import spread
from distillkit_diffusers.sd3.configs import SD3TeacherConfig
from tests.distillkit_diffusers.sd3.tiny import noise
from tests.distillkit_diffusers.tiny import PROMPTS

T_B = torch.tensor([10, 750])


def whole(side: int = 8) -> Window:
    zeros = torch.zeros(2, dtype=torch.long)
    return Window(zeros, zeros, side, side, side, side)


def tapped(teacher: Any, x_t: torch.Tensor, positions: Any = None) -> list[torch.Tensor]:
    """What hooks catch in the whole transformer: the picture's tokens after every block."""
    transformer, caught = teacher.pipe.transformer, []
    hooks = [
        block.register_forward_hook(lambda m, i, out: caught.append(out[1]))
        for block in transformer.transformer_blocks
    ]
    if positions is not None:
        hooks.append(transformer.pos_embed.register_forward_hook(positions))
    with torch.no_grad():
        teacher.denoiser(x_t, T_B, teacher.encode(PROMPTS))
    for hook in hooks:
        hook.remove()
    side = x_t.shape[-1] // 2
    return [tokens.transpose(1, 2).unflatten(2, (side, side)) for tokens in caught]


@pytest.mark.parametrize("blocks", [None, (0, 1)])
def test_maps_are_what_hooks_catch(teacher: Any, blocks: Any) -> None:
    x_t = noise(2)
    backbone = DiTConfig(blocks=blocks).build(teacher)
    maps = backbone.features(x_t, T_B, teacher.encode(PROMPTS), whole())
    expected = tapped(teacher, x_t)[: len(maps)]
    assert len(maps) == (3 if blocks is None else 2)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert backbone.channels == (16,) * len(maps)
    [network] = backbone.modules()
    assert len(network.transformer_blocks) == len(maps)  # exit after the last tap
    own = {p.data_ptr() for p in teacher.pipe.transformer.parameters()}
    assert {p.data_ptr() for p in network.parameters()} <= own


def test_a_local_view_has_the_positions_of_its_place(teacher: Any) -> None:
    """The tiny table is 8 by 8 places and the picture 4 by 4 patches, so it begins at (2, 2).

    The crop at cell (4, 2) begins at patch (2, 1) of the picture: at place (4, 3).
    """
    x_t, cond = noise(2)[:, :, :4, :4], teacher.encode(PROMPTS)
    window = Window(torch.tensor([4, 4]), torch.tensor([2, 2]), 4, 4, 8, 8)
    embed = teacher.pipe.transformer.pos_embed
    table = embed.pos_embed.view(8, 8, -1)

    def moved(module: Any, given: Any, output: torch.Tensor) -> torch.Tensor:
        stock = table[3:5, 3:5].flatten(0, 1)  # diffusers takes the middle of the table
        return output - stock + table[4:6, 3:5].flatten(0, 1)

    maps = DiTConfig().build(teacher).features(x_t, T_B, cond, window)
    for ours, theirs in zip(maps, tapped(teacher, x_t, moved), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    constant = DiTConfig(positions="constant").build(teacher).features(x_t, T_B, cond, window)
    for ours, theirs in zip(constant, tapped(teacher, x_t), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_no_gradient(teacher: Any) -> None:
    grads = []
    for checkpointing in (False, True):
        backbone = DiTConfig(gradient_checkpointing=checkpointing).build(teacher)
        x_t = noise(2).requires_grad_()
        maps = backbone.features(x_t, T_B, teacher.encode(PROMPTS), whole())
        sum(m.square().mean() for m in maps).backward()
        assert x_t.grad is not None
        grads.append(x_t.grad)
    torch.testing.assert_close(*grads)
    assert float(grads[0].abs().max()) > 0


def test_default_taps_are_spread_over_the_depth() -> None:
    assert spread(24) == (2, 7, 12, 16, 21)
    assert spread(38) == (3, 11, 19, 26, 34)
    assert spread(3) == (0, 1, 2)


def test_a_block_that_is_not_there_is_a_sentence(teacher: Any) -> None:
    with pytest.raises(UserError, match=r"backbone.blocks: there is no block 3; the network's bl"):
        DiTConfig(blocks=(0, 3)).build(teacher)
    with pytest.raises(ValueError, match=r"should rise, like \[0, 2\]"):
        DiTConfig(blocks=(2, 0))


def test_the_pooled_prompt_for_heads_that_see_it(
    teacher: Any, teacher_config: SD3TeacherConfig
) -> None:
    backbone, cond = DiTConfig().build(teacher), teacher.encode(PROMPTS)
    assert backbone.pooled_channels == DiTConfig().pooled_channels(teacher_config)
    assert backbone.pooled(cond).shape == (len(PROMPTS), backbone.pooled_channels)
    assert torch.equal(backbone.pooled(cond), cond.tensors["pooled"])

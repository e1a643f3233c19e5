"""Maps of tapped blocks: against hooks in the transformers; positions of local views."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from distillkit.errors import UserError
from distillkit.training.models.compiled import regions
from distillkit.values import Window
from distillkit_diffusers.flow.dit_config import DiTConfig
from tests.distillkit_diffusers.flow.tiny import PROMPTS, Tiny

T_B = torch.tensor([10, 750])


def blocks_of(transformer: Any) -> list[Any]:
    """What critics may tap, in order."""
    if hasattr(transformer, "layers"):
        return [*transformer.layers]
    return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]


def tapped(teacher: Any, x_t: torch.Tensor, row: int = 0) -> list[torch.Tensor]:
    """What hooks catch in the whole transformer: one picture's tokens after every block."""
    caught: list[torch.Tensor] = []
    cond = teacher.encode(PROMPTS)[slice(row, row + 1)]
    side = x_t.shape[-1] // teacher.family.blocks(teacher.pipe.transformer.config).patch
    count = side * side

    def catch(_: Any, __: Any, output: Any) -> None:
        if isinstance(output, tuple):  # a double block: text, picture
            caught.append(output[1])
        elif hasattr(teacher.pipe.transformer, "layers"):  # picture, padding, text
            caught.append(output[:, :count])
        else:  # text, picture
            caught.append(output[:, -count:])

    hooks = [b.register_forward_hook(catch) for b in blocks_of(teacher.pipe.transformer)]
    with torch.no_grad():
        teacher.denoiser(x_t[row : row + 1], T_B[row : row + 1], cond)
    for hook in hooks:
        hook.remove()
    return [tokens.transpose(1, 2).unflatten(2, (side, side)) for tokens in caught]


def whole(side: int) -> Window:
    zeros = torch.zeros(2, dtype=torch.long)
    return Window(zeros, zeros, side, side, side, side)


@pytest.mark.parametrize("blocks", [None, (0, 2), (1,)])
def test_maps_are_what_hooks_catch(tiny: Tiny, teacher: Any, blocks: Any) -> None:
    x_t = tiny.noise(2)
    backbone = DiTConfig(blocks=blocks).build(teacher)
    maps = backbone.features(x_t, T_B, teacher.encode(PROMPTS), whole(x_t.shape[-1]))
    taps = blocks or range(tiny.blocks)
    assert backbone.channels == (16,) * len(taps)
    for row in (0, 1):
        expected = tapped(teacher, x_t, row)
        for ours, tap in zip(maps, taps, strict=True):
            torch.testing.assert_close(ours[row], expected[tap][0], rtol=1e-4, atol=1e-5)
    [network] = backbone.modules()
    own = {p.data_ptr() for p in teacher.pipe.transformer.parameters()}
    mine = {p.data_ptr() for p in network.parameters()}
    assert mine <= own
    last = blocks_of(teacher.pipe.transformer)[max(taps) + 1 :]
    assert not mine & {p.data_ptr() for block in last for p in block.parameters()}


def moved(teacher: Any, monkeypatch: pytest.MonkeyPatch, corner: tuple[int, int]) -> None:
    """The stock network's position ids, shifted by a corner in patches."""
    embedder = getattr(teacher.pipe.transformer, "rope_embedder", None)
    owner = embedder or teacher.pipe.transformer.pos_embed
    real = type(owner).__call__ if embedder else type(owner).forward

    def shifted(self: Any, ids: torch.Tensor) -> Any:
        # Patches are those with a time or a place of their own; words have neither row nor column.
        ids = ids.clone()
        if embedder is not None:
            patches = ids[:, 0] == ids[:, 0].max()
            if not bool(ids[:, 1:].any()):
                return real(self, ids)
        else:
            patches = torch.full((len(ids),), not bool(ids[:, 3].any()))
        ids[patches, 1] += corner[0]
        ids[patches, 2] += corner[1]
        return real(self, ids)

    monkeypatch.setattr(type(owner), "__call__" if embedder else "forward", shifted)


@pytest.mark.parametrize("row", [0, 1])
def test_a_local_view_has_the_positions_of_its_place(
    tiny: Tiny, teacher: Any, monkeypatch: pytest.MonkeyPatch, row: int
) -> None:
    """Each picture of a batch has its own corner."""
    patch = teacher.family.blocks(teacher.pipe.transformer.config).patch
    full = tiny.latent_shape[1]
    half, cond = full // 2, teacher.encode(PROMPTS)
    x_t = tiny.noise(2)[:, :, :half, :half]
    tops, lefts = torch.tensor([0, half]), torch.tensor([half, patch])
    window = Window(tops, lefts, half, half, full, full)
    maps = DiTConfig().build(teacher).features(x_t, T_B, cond, window)
    constant = DiTConfig(positions="constant").build(teacher).features(x_t, T_B, cond, window)
    for ours, theirs in zip(constant, tapped(teacher, x_t, row), strict=True):
        torch.testing.assert_close(ours[row], theirs[0], rtol=1e-4, atol=1e-5)
    moved(teacher, monkeypatch, (int(tops[row]) // patch, int(lefts[row]) // patch))
    for ours, theirs in zip(maps, tapped(teacher, x_t, row), strict=True):
        torch.testing.assert_close(ours[row], theirs[0], rtol=1e-4, atol=1e-5)
    assert float((maps[-1] - constant[-1]).abs().max()) > 1e-5


def test_checkpointing_changes_no_gradient(tiny: Tiny, teacher: Any) -> None:
    grads = []
    for checkpointing in (False, True):
        backbone = DiTConfig(gradient_checkpointing=checkpointing).build(teacher)
        x_t = tiny.noise(2).requires_grad_()
        maps = backbone.features(x_t, T_B, teacher.encode(PROMPTS), whole(x_t.shape[-1]))
        sum(m.square().mean() for m in maps).backward()  # type: ignore[union-attr]
        assert x_t.grad is not None
        grads.append(x_t.grad)
    torch.testing.assert_close(*grads)
    assert float(grads[0].abs().max()) > 0


def test_a_block_that_is_not_there_is_a_sentence(tiny: Tiny, teacher: Any) -> None:
    said = f"backbone.blocks: there is no block 9; the network's blocks are 0 to {tiny.blocks - 1}"
    with pytest.raises(UserError, match=said):
        DiTConfig(blocks=(0, 9)).build(teacher)


def test_layers_are_compiled_one_by_one(teacher: Any) -> None:
    """Of the transformer as it is trained or sampled, of its taps, of a LoRA's network."""
    [taps] = DiTConfig(type="dit").build(teacher).modules()
    for network in (teacher.pipe.transformer, taps, teacher.adapted(2).module):
        layers = regions(network)
        assert network not in layers
        assert {type(m) for m in layers} <= {type(m) for m in blocks_of(teacher.pipe.transformer)}

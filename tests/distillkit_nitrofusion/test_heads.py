"""A head: any map size, weights from a generator alone, silence at first, few parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distillkit_nitrofusion.heads import CellHead, Head, ImageLogit, PatchHead, logits_of, make_head

SDXL = [320] * 4 + [640] * 3 + [1280] * 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def head(channels: int = 4, depth: int = 2, zero_init: bool = False, seed: int = 0) -> PatchHead:
    return make_head(channels, 16, depth, zero_init, seeded(seed))


@pytest.mark.parametrize(
    ("side", "depth", "patches"),
    [(16, 2, 16), (8, 2, 4), (4, 2, 1), (2, 2, 1), (1, 2, 1), (16, 1, 64), (5, 1, 4), (1, 6, 1)],
)
def test_map_sizes(side: int, depth: int, patches: int) -> None:
    """A block halves the side, rounding down, and stops at one: 16 -> 8 -> 4, 5 -> 2, 1 -> 1.

    At every size every weight has a gradient, and so has the picture.
    """
    judge = head(depth=depth)
    feature = torch.randn(3, 4, side, side, generator=seeded(1), requires_grad=True)
    logits = judge(feature)
    assert logits.shape == (3, patches)
    (logits.square().mean()).backward()
    assert all((p.grad != 0).any() for p in [feature, *judge.parameters()])


def test_a_map_of_one_row() -> None:
    """1 x 6 -> (2 x 6 ->) 1 x 3 -> 1 x 1."""
    assert head()(torch.ones(1, 4, 1, 6)).shape == (1, 1)


def test_one_cell_is_judged_by_what_it_holds() -> None:
    """GroupNorm over a single value would say the same of every picture; groups hold several."""
    logits = head()(torch.randn(2, 4, 1, 1, generator=seeded(1)))
    assert (logits[0] - logits[1]).abs().item() > 1e-3


def test_pictures_are_judged_alone() -> None:
    feature = torch.randn(3, 4, 8, 8, generator=seeded(1))
    judge = head()
    torch.testing.assert_close(judge(feature)[:1], judge(feature[:1]))


def test_weights_come_from_the_generator_alone() -> None:
    """torch's global generator is neither asked nor moved."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = head().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = head().state_dict(), head(seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["convs.0.weight"], other["convs.0.weight"])


def test_first_weights_have_unit_gain() -> None:
    """Variance 1 / fan-in: a conv from 64 channels has 64 * 16 inputs, so std 1 / 32."""
    judge = make_head(64, 64, 2, False, seeded(0))
    assert judge.convs[0].weight.std().item() == pytest.approx(1 / 32, rel=0.02)
    assert judge.projection.weight.std().item() == pytest.approx(1 / 8, rel=0.25)


def test_a_new_head_is_silent_but_learns() -> None:
    """With a zero projection: logit 0 and no gradient for the student; yet it learns to tell two
    kinds of picture apart, and then has something to tell the student."""
    judge = head(zero_init=True)
    real = torch.randn(8, 4, 8, 8, generator=seeded(1))
    fake = (0.5 * torch.randn(8, 4, 8, 8, generator=seeded(2)) + 0.5).requires_grad_()
    assert (judge(fake) == 0).all()
    assert (torch.autograd.grad(judge(fake).mean(), fake)[0] == 0).all()

    optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2, betas=(0.0, 0.99))
    for _ in range(30):
        optimizer.zero_grad()
        loss = (1 - judge(real)).relu().mean() + (1 + judge(fake.detach())).relu().mean()
        loss.backward()
        optimizer.step()
    assert (judge(real).mean(1) > judge(fake).mean(1)).all()
    assert (torch.autograd.grad(judge(fake).mean(), fake)[0] != 0).any()


@pytest.mark.parametrize(("side", "depth", "cells"), [(16, 1, 15), (16, 2, 14), (1, 1, 1)])
def test_without_a_stride_a_patch_head_keeps_nearly_every_cell(
    side: int, depth: int, cells: int
) -> None:
    """A 4x4 convolution with padding 1 takes one cell off a side: 16 -> 15 -> 14; 1 -> 2 -> 1."""
    judge = make_head(4, 16, depth, False, seeded(0), stride=1)
    assert judge(torch.randn(2, 4, side, side, generator=seeded(1))).shape == (2, cells**2)


@pytest.mark.parametrize("side", [16, 1])
def test_a_cell_head_gives_a_logit_for_every_cell(side: int) -> None:
    """Of a map of any size; every weight has a gradient, and so has the picture."""
    judge = make_head(4, 16, 1, False, seeded(0), kind="cell")
    feature = torch.randn(3, 4, side, side, generator=seeded(1), requires_grad=True)
    logits = judge(feature)
    assert logits.shape == (3, side * side)
    logits.square().mean().backward()
    assert all((p.grad != 0).any() for p in [feature, *judge.parameters()])


def test_a_cell_head_sees_the_cells_around() -> None:
    """One 3x3 convolution: a cell's logit hears of its neighbours through it, but through GroupNorm
    alone of the others; with that switched off, of cells two away nothing."""
    judge = make_head(4, 16, 1, False, seeded(0), kind="cell")
    judge.norm = nn.Identity()
    one = torch.zeros(1, 4, 5, 5)
    other = one.clone()
    other[..., 2, 2] = 1.0
    changed = (judge(other) - judge(one)).view(5, 5) != 0
    assert changed[1:4, 1:4].all()
    assert int(changed.sum()) == 9


def test_the_prompt_is_projected_onto_each_cells_features() -> None:
    """D = 2: features (1, 2) and (3, 4), v = (1, 1), b = 0.5, W c = (2, -1) for c = (1, -1):
    3.5 + (2 - 2) / sqrt(2) = 3.5, and 7.5 + (6 - 4) / sqrt(2) = 7.5 + sqrt(2).

    Twice the pooled prompt is the same prompt: its mean square is brought to 1.
    """
    projection, prompt = nn.Conv2d(2, 1, 1), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        projection.weight.fill_(1)
        projection.bias.fill_(0.5)
        prompt.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    features = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).view(1, 2, 1, 2)
    for scale in (1, 2):
        pooled = scale * torch.tensor([[1.0, -1.0]])
        logits = logits_of(features, projection, prompt, None, pooled)
        torch.testing.assert_close(logits, torch.tensor([[3.5, 7.5 + 2**0.5]]))


@pytest.mark.parametrize("kind", ["patch", "cell"])
@pytest.mark.parametrize("side", [8, 1])
def test_the_logit_of_the_whole_map_is_added_to_every_cells(kind: str, side: int) -> None:
    """Of any size of map; every weight has a gradient, and so have the picture and the prompt."""
    judge = make_head(4, 16, 1, False, seeded(0), kind=kind, pooled=6, image_logit=True)
    feature = torch.randn(3, 4, side, side, generator=seeded(1), requires_grad=True)
    pooled = torch.randn(3, 6, generator=seeded(2), requires_grad=True)
    logits = judge(feature, pooled)
    logits.square().mean().backward()
    assert all((p.grad != 0).any() for p in [feature, pooled, *judge.parameters()])

    judge.image_logit = None
    image = logits - judge(feature, pooled)
    assert image.abs().min() > 1e-3
    torch.testing.assert_close(image, image[:, :1].expand_as(image))


def test_the_logit_of_the_whole_map_hears_of_every_cell() -> None:
    """What only its neighbours hear of without it (GroupNorm switched off) changes all of them."""
    judge = make_head(4, 16, 1, False, seeded(0), kind="cell", image_logit=True)
    judge.norm = nn.Identity()
    one = torch.zeros(1, 4, 5, 5)
    other = one.clone()
    other[..., 2, 2] = 1.0
    assert (judge(other) != judge(one)).all()


def test_the_logit_of_the_whole_map_is_silent_at_first() -> None:
    """With `zero_init`, as the cells' logits are."""
    judge = make_head(4, 16, 1, True, seeded(0), kind="cell", pooled=6, image_logit=True)
    assert (judge(torch.ones(2, 4, 8, 8), torch.ones(2, 6)) == 0).all()


def test_the_logit_of_the_whole_map_is_counted_by_hand() -> None:
    """D = 16: (48 * 32 + 32) + (32 + 1) = 1,601 more, and 6 * 32 = 192 for a prompt of 6."""
    counts = [
        sum(p.numel() for p in ImageLogit(16, True, pooled).parameters()) for pooled in (None, 6)
    ]
    assert counts == [1601, 1793]


@pytest.mark.parametrize("kind", ["patch", "cell"])
def test_a_head_with_the_prompt_can_learn_what_no_other_can(kind: str) -> None:
    """Real is a picture of its prompt's sign, fake of the other: without the prompt both players
    have the same pictures, so that no head can be right of more than half of the pairs."""
    sign = torch.tensor([1.0, -1.0] * 8)
    picture = torch.randn(4, 4, 4, generator=seeded(1))
    real, fake = (picture + side * sign.view(-1, 1, 1, 1) for side in (1, -1))
    pooled = sign[:, None] * torch.ones(16, 6)

    def accuracy(judge: Head, *prompt: torch.Tensor) -> float:
        optimizer = torch.optim.AdamW(judge.parameters(), lr=1e-2, betas=(0.0, 0.99))
        for _ in range(60):
            optimizer.zero_grad()
            (judge(fake, *prompt) - judge(real, *prompt)).sigmoid().mean().backward()
            optimizer.step()
        gap = (judge(real, *prompt) - judge(fake, *prompt)).mean(1)
        return float((gap > 0).double().mean())

    make = [make_head(4, 16, 1, True, seeded(0), kind=kind, pooled=p) for p in (6, None)]
    assert accuracy(make[0], pooled) == 1
    assert accuracy(make[1]) <= 0.5


def test_cell_heads_are_counted_by_hand() -> None:
    """C = 4, D = 16, one block: 4 * 16 + 2 * 16 + (16 * 16 * 9 + 16) + 16 + 1 = 2,433."""
    with torch.device("meta"):
        judge = CellHead(4, 16, 1, zero_init=True)
    assert sum(p.numel() for p in judge.parameters()) == 2433


def test_the_papers_pool_on_sdxl_has_378_million_parameters() -> None:
    """Per head of width 64: C * 64 * 16 + 128, 64 * 64 * 16 + 128, 64 + 1: 1024 C + 65,857.

    The levels' C sum to 4 * 320 + 3 * 640 + 3 * 1280 = 7,040: 7,208,960 + 658,570 = 7,867,530 for
    ten heads; 48 such rows make 377,641,440, where C -> 256 heads have 1.4 billion.
    """
    with torch.device("meta"):
        row = nn.ModuleList(PatchHead(c, width=64, depth=2, zero_init=True) for c in SDXL)
    assert 48 * sum(p.numel() for p in row.parameters()) == 377_641_440

"""A head: any map size, weights from a generator alone, silence at first, few parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distillkit_nitrofusion.heads import PatchHead, make_head

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


def test_the_papers_pool_on_sdxl_has_378_million_parameters() -> None:
    """Per head of width 64: C * 64 * 16 + 128, 64 * 64 * 16 + 128, 64 + 1: 1024 C + 65,857.

    The levels' C sum to 4 * 320 + 3 * 640 + 3 * 1280 = 7,040: 7,208,960 + 658,570 = 7,867,530 for
    ten heads; 48 such rows make 377,641,440, where C -> 256 heads have 1.4 billion.
    """
    with torch.device("meta"):
        row = nn.ModuleList(PatchHead(c, width=64, depth=2, zero_init=True) for c in SDXL)
    assert 48 * sum(p.numel() for p in row.parameters()) == 377_641_440

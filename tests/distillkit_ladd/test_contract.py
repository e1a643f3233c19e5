"""LADD's pool keeps the contract that every pool is held to."""

from __future__ import annotations

import pytest
import torch

from distillkit import testing
from distillkit_ladd.pool import ContinuousPoolConfig


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_ladd.plugin")


@pytest.mark.parametrize("sees_prompt", [False, True])
def test_the_pool(sees_prompt: bool) -> None:
    testing.check(ContinuousPoolConfig(width=16, prompt_projection=sees_prompt))


def test_heads_hear_the_prompt_itself() -> None:
    """Of equal features, logits differ by the pooled prompt, and by nothing of its scale."""
    pool = ContinuousPoolConfig(width=16, prompt_projection=True).build((8,), 0, 5)
    [head] = pool.heads
    seeded = torch.Generator().manual_seed(0)
    x_BChw = torch.randn(1, 8, 4, 4, generator=seeded).expand(3, -1, -1, -1)
    pooled_BP = torch.randn(3, 5, generator=seeded)
    pooled_BP[2] = 7 * pooled_BP[1]
    one_K, two_K, scaled_K = head(x_BChw, pooled_BP)
    assert not torch.allclose(one_K, two_K)
    assert torch.allclose(two_K, scaled_K, atol=1e-5)

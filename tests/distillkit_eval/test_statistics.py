"""Statistics against independent implementations in numpy, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distillkit.randomness import generator
from distillkit_eval.statistics import (
    frechet_distance,
    kernel_distance,
    pairwise_distance,
    precision_recall,
    squared_mmd,
    vendi_score,
)


def vectors(count: int, features: int, seed: int) -> torch.Tensor:
    mixing = torch.randn(features, features, generator=generator(seed, "mixing"))
    return torch.randn(count, features, generator=generator(seed, "vectors")) @ mixing + seed


@pytest.mark.parametrize("count", [40, 5], ids=["more vectors than features", "fewer"])
def test_frechet_distance_against_numpys_eigenvalues(count: int) -> None:
    """tr(sqrt(AB)) is the sum of the roots of AB's eigenvalues, which are real and not negative."""
    a, b = vectors(count, 6, 1), vectors(count + 3, 6, 2)
    x, y = a.double().numpy(), b.double().numpy()
    cov_a, cov_b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    roots = np.sqrt(np.clip(np.linalg.eigvals(cov_a @ cov_b).real, 0, None)).sum()
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum()
    wanted = shift + np.trace(cov_a) + np.trace(cov_b) - 2 * roots
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-4)


def test_frechet_distance_by_hand() -> None:
    """Two points at 0 and 2 against two at 5 and 9: means 1 and 7, variances 2 and 8."""
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [9.0]])
    assert frechet_distance(a, b) == pytest.approx(36 + 2 + 8 - 2 * math.sqrt(16))


def test_squared_mmd_by_hand() -> None:
    """Kernel (xy + 1)^3 of {0, 1} and {0, 2}: within, 1 and 1 twice; across 1, 1, 1 and 27."""
    a, b = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([[0.0], [2.0]]).double()
    assert squared_mmd(a, b) == pytest.approx((2 + 2) / 2 - 2 * (1 + 1 + 1 + 27) / 4)


def test_kernel_distance_against_a_loop_and_its_floor() -> None:
    a, b = vectors(12, 3, 1), vectors(12, 3, 2)
    draws, size = generator(7, "kid"), 6
    found = kernel_distance(a, b, generator(7, "kid"), subsets=3, size=99)
    total = 0.0
    for _ in range(3):
        x = a[torch.randperm(12, generator=draws)[:size]].double().numpy()
        y = b[torch.randperm(12, generator=draws)[:size]].double().numpy()
        pairs = [(i, j) for i in range(size) for j in range(size)]

        def kernel(u: np.ndarray, v: np.ndarray) -> float:
            return float((u @ v / 3 + 1) ** 3)

        same = sum(kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs if i != j)
        across = sum(kernel(x[i], y[j]) for i, j in pairs)
        total += same / (size * (size - 1)) - 2 * across / size**2
    assert found == pytest.approx(total / 3, rel=1e-9)


def test_precision_and_recall_by_hand() -> None:
    """Real 0, 1, 2, 3 with third neighbours 3, 2, 2, 3 away: they reach from -3 to 6. Made 0, 5,
    7, 50, whose balls of 50, 45, 43 and 50 hold every real one."""
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    made = torch.tensor([[0.0], [5.0], [7.0], [50.0]])
    assert precision_recall(made, real) == (0.5, 1.0)
    assert precision_recall(made, real, chunk=1) == (0.5, 1.0)


def test_vendi_score_and_distance_by_hand() -> None:
    """Equal pictures count as one, orthogonal ones each; two pairs of equals as two."""
    eye = torch.eye(4)
    assert vendi_score(eye[:1].repeat(4, 1) * 3) == pytest.approx(1)
    assert vendi_score(eye) == pytest.approx(4)
    assert vendi_score(eye[[0, 0, 1, 1]]) == pytest.approx(2)
    assert pairwise_distance(eye) == pytest.approx(1)
    # Of the six pairs four are orthogonal.
    assert pairwise_distance(eye[[0, 0, 1, 1]]) == pytest.approx(4 / 6)

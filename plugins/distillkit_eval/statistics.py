"""Distances between two sets of feature vectors, and the spread of one set. In float64.

Legend: N, M vectors, F features. Name the features with every distance: it is no FID unless they
are Inception's.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def frechet_distance(a_NF: Tensor, b_MF: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 sqrt(AB)), A and B the unbiased covariances.

    Heusel et al. 2017, equation 6. tr(sqrt(AB)) is the sum of the singular values of
    sqrt(A) sqrt(B), so no root of a matrix that is not symmetric is needed.
    """
    a_NF, b_MF = a_NF.double(), b_MF.double()
    shift = (a_NF.mean(0) - b_MF.mean(0)).square().sum()
    # With X'X / (n - 1) = A the singular values of X_a X_b' are those of sqrt(A) sqrt(B), scaled.
    x, y = (v - v.mean(0) for v in (a_NF, b_MF))
    x, y = x / (len(x) - 1) ** 0.5, y / (len(y) - 1) ** 0.5
    if len(x) <= x.shape[1] or len(y) <= y.shape[1]:
        roots = torch.linalg.svdvals(x @ y.T)
    else:
        roots = torch.linalg.svdvals(_root(x.T @ x) @ _root(y.T @ y))
    return float(shift + x.square().sum() + y.square().sum() - 2 * roots.sum())


def _root(a_FF: Tensor) -> Tensor:
    values_F, vectors_FF = torch.linalg.eigh(a_FF)
    return vectors_FF * values_F.clamp(min=0).sqrt() @ vectors_FF.T


def kernel_distance(
    a_NF: Tensor, b_MF: Tensor, generator: Generator, subsets: int = 100, size: int = 1000
) -> float:
    """KID: the mean over random subsets of the unbiased squared MMD with kernel (x.y / F + 1)^3.

    Binkowski et al. 2018. Subsets are at most half of the smaller set, so that they differ.
    """
    size = max(2, min(size, len(a_NF) // 2, len(b_MF) // 2))

    def subset(x_NF: Tensor) -> Tensor:
        return x_NF[torch.randperm(len(x_NF), generator=generator)[:size]].double()

    found = [squared_mmd(subset(a_NF), subset(b_MF)) for _ in range(subsets)]
    return sum(found) / len(found)


def squared_mmd(a_NF: Tensor, b_NF: Tensor) -> float:
    """Unbiased squared MMD of two sets of one size; within a set no vector meets itself."""
    n, features = a_NF.shape
    aa, bb, ab = (
        (x @ y.T / features + 1) ** 3 for x, y in ((a_NF, a_NF), (b_NF, b_NF), (a_NF, b_NF))
    )
    within = aa.sum() - aa.trace() + bb.sum() - bb.trace()
    return float(within / (n * (n - 1)) - 2 * ab.mean())


def precision_recall(
    made_NF: Tensor, real_MF: Tensor, neighbours: int = 3, chunk: int = 1000
) -> tuple[float, float]:
    """Share of made vectors within the real ones' manifold, and of real ones within the made ones'.

    Kynkaanniemi et al. 2019: a manifold is the union of balls around its vectors, each reaching to
    its third nearest neighbour.
    """
    made, real = made_NF.double(), real_MF.double()
    return _inside(made, real, neighbours, chunk), _inside(real, made, neighbours, chunk)


def _inside(a_NF: Tensor, b_MF: Tensor, neighbours: int, chunk: int) -> float:
    """Share of `a` in the balls around `b`."""
    kth = min(neighbours + 1, len(b_MF))  # a vector is its own nearest
    reach_M = torch.cat([torch.cdist(x, b_MF).kthvalue(kth).values for x in b_MF.split(chunk)])
    found = [(torch.cdist(x, b_MF) <= reach_M).any(1).double() for x in a_NF.split(chunk)]
    return float(torch.cat(found).mean())


def pairwise_distance(x_NF: Tensor) -> float:
    """Mean of 1 - cosine over all pairs of two or more vectors."""
    cosine_NN = _cosines(x_NF)
    n = len(cosine_NN)
    return float(1 - (cosine_NN.sum() - cosine_NN.trace()) / (n * (n - 1)))


def vendi_score(x_NF: Tensor) -> float:
    """exp of the entropy of the eigenvalues of K / N, K the cosines: from 1 (all alike) to N.

    Friedman and Dieng 2023, the effective number of different pictures.
    """
    values_N = torch.linalg.eigvalsh(_cosines(x_NF) / len(x_NF)).clamp(min=0)
    values_N = values_N[values_N > 1e-12]
    return float(torch.exp(-(values_N * values_N.log()).sum()))


def _cosines(x_NF: Tensor) -> Tensor:
    unit_NF = torch.nn.functional.normalize(x_NF.double(), dim=1)
    return unit_NF @ unit_NF.T

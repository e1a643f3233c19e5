"""Distances between two sets of feature vectors or of pictures, sharpness, variety.

Legend: N, M vectors or pictures, F features, C = 3, H, W pixels. Name the features with every
distance: it is no FID unless they are Inception's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor


def frechet_distance(a_NF: Tensor, b_MF: Tensor) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 sqrt(AB)), A and B the covariances, in float64.

    Covariances are the unbiased ones. Heusel et al. 2017, equation 6. ValueError below 2 vectors.
    """
    if min(len(a_NF), len(b_MF)) < 2:
        raise ValueError("a Frechet distance needs at least two vectors on each side")
    a_NF, b_MF = a_NF.double(), b_MF.double()
    shift = (a_NF.mean(0) - b_MF.mean(0)).square().sum()
    cov_a_FF, cov_b_FF = (torch.atleast_2d(torch.cov(x.T)) for x in (a_NF, b_MF))
    spread = cov_a_FF.trace() + cov_b_FF.trace() - 2 * _trace_of_root(cov_a_FF, cov_b_FF)
    return float(shift + spread)


def _trace_of_root(a_FF: Tensor, b_FF: Tensor) -> Tensor:
    """tr(sqrt(AB)) of two symmetric, positive semi-definite matrices.

    AB is similar to the symmetric sqrt(A) B sqrt(A), whose eigenvalues are real and not negative.
    """
    values_F, vectors_FF = torch.linalg.eigh(a_FF)
    root_FF = vectors_FF * values_F.clamp(min=0).sqrt() @ vectors_FF.T
    return torch.linalg.eigvalsh(root_FF @ b_FF @ root_FF).clamp(min=0).sqrt().sum()


def squared_mmd(a_NF: Tensor, b_NF: Tensor) -> Tensor:
    """Unbiased squared MMD with the kernel (x.y / F + 1)^3; two sets of equal size N >= 2."""
    n, features = a_NF.shape
    assert b_NF.shape == a_NF.shape, "two sets of equal size"
    assert n > 1, "at least two vectors"
    kernel_aa, kernel_bb, kernel_ab = (
        (x @ y.T / features + 1) ** 3 for x, y in ((a_NF, a_NF), (b_NF, b_NF), (a_NF, b_NF))
    )
    # Within a set, a vector is not compared with itself.
    within = kernel_aa.sum() - kernel_aa.trace() + kernel_bb.sum() - kernel_bb.trace()
    return within / (n * (n - 1)) - 2 * kernel_ab.mean()


def kernel_distance(
    a_NF: Tensor, b_MF: Tensor, generator: Generator, subsets: int = 50, size: int = 500
) -> tuple[float, float]:
    """KID: mean and standard deviation of `squared_mmd` over random subsets, in float64.

    Binkowski et al. 2018. Subsets shrink to the smaller set where that has fewer than `size`.
    """
    size = min(size, len(a_NF), len(b_MF))

    def subset(x_NF: Tensor) -> Tensor:
        return x_NF[torch.randperm(len(x_NF), generator=generator)[:size]].double()

    values = torch.stack([squared_mmd(subset(a_NF), subset(b_MF)) for _ in range(subsets)])
    return float(values.mean()), float(values.std())


def sharpness(x_NCHW: Tensor) -> float:
    """Mean magnitude of the brightness gradient of pictures in [0, 1], per pixel step."""
    grey_NHW = x_NCHW.float().mean(dim=1)
    across, down = grey_NHW.diff(dim=2)[:, :-1], grey_NHW.diff(dim=1)[:, :, :-1]
    return float(torch.hypot(across, down).mean())


def log_power(x_NCHW: Tensor) -> Tensor:
    """Mean radially averaged power spectrum of square pictures' brightness, in decibels.

    A value for each frequency of 1 to H / 2 periods a side: the mean over its ring, under a Hann
    window, as 10 log10, then the mean over pictures. White noise of variance v has 10 log10(v)
    everywhere. A power of -100 dB is added, so that flat pictures have a spectrum too.
    """
    side = x_NCHW.shape[-1]
    window = torch.hann_window(side)
    grey_NHW = x_NCHW.float().mean(dim=1)
    grey_NHW = (grey_NHW - grey_NHW.mean(dim=(1, 2), keepdim=True)) * window * window[:, None]
    power_NP = (torch.fft.rfft2(grey_NHW).abs().square() / window.square().sum() ** 2).flatten(1)
    # rfft2 leaves out the negative columns, whose power is that of the positive ones.
    down, across = torch.fft.fftfreq(side) * side, torch.fft.rfftfreq(side) * side
    ring_P = torch.hypot(down[:, None], across).round().long().flatten()
    rings = side // 2 + 1
    ring_P = ring_P.clamp(max=rings)
    sums = power_NP.new_zeros(len(power_NP), rings + 1).index_add_(1, ring_P, power_NP)
    mean_NR = sums[:, 1:rings] / torch.bincount(ring_P, minlength=rings + 1)[1:rings]
    return (10 * (mean_NR + 1e-10).log10()).mean(dim=0)


def spectrum_distance(a_R: Tensor, b_R: Tensor) -> float:
    """Root mean square difference of two spectra of `log_power`, in decibels."""
    return float((a_R - b_R).square().mean().sqrt())


def variety(features_NF: Tensor, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean distance between the vectors of each group, of those that have two at least."""
    found = {}
    for name, rows in groups.items():
        if len(rows) > 1:
            found[name] = float(torch.pdist(features_NF[list(rows)]).mean())
    return found

"""Set distances and sharpness against values worked out by hand."""

from __future__ import annotations

import pytest
import torch

from distillkit_shapes.distances import (
    frechet_distance,
    kernel_distance,
    log_power,
    sharpness,
    spectrum_distance,
    squared_mmd,
    variety,
)


def test_frechet_distance_of_one_feature() -> None:
    """Means 1 and 5, variances 2 and 8: (1 - 5)^2 + 2 + 8 - 2 sqrt(16) = 18."""
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [7.0]])
    assert frechet_distance(a, b) == pytest.approx(18.0)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-12)


def test_frechet_distance_with_covariances_that_do_not_commute() -> None:
    """A = diag(4, 1) and B = [[2.5, 1.5], [1.5, 2.5]] (variances 4 and 1 rotated by 45 degrees).

    tr A = tr B = 5, det(AB) = 16 and tr(AB) = 12.5; a 2x2 root has trace
    sqrt(tr + 2 sqrt(det)) = sqrt(12.5 + 8) = sqrt(20.5), so the distance is 10 - 2 sqrt(20.5).
    The four points +-u, +-v have unbiased covariance (2 / 3)(uu' + vv').
    """
    half = 1.5**0.5
    u, v = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    rotation = torch.tensor([[1.0, -1.0], [1.0, 1.0]]) / 2**0.5
    a = half * torch.stack([u, -u, v, -v])
    b = a @ rotation.T
    assert frechet_distance(a, b) == pytest.approx(10 - 2 * 20.5**0.5, abs=1e-5)


def test_frechet_distance_needs_two_vectors() -> None:
    with pytest.raises(ValueError, match="at least two vectors"):
        frechet_distance(torch.zeros(1, 3), torch.zeros(5, 3))


def test_squared_mmd_by_hand() -> None:
    """One feature, kernel (xy + 1)^3, sets {0, 1} and {0, 2}.

    Off-diagonal within: k(0,1) = 1 and k(0,2) = 1, so each set's mean is 1. Across:
    k(0,0) = k(0,2) = k(1,0) = 1, k(1,2) = 27, mean 7.5. 1 + 1 - 2 * 7.5 = -13.
    """
    a, b = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [2.0]])
    assert float(squared_mmd(a, b)) == pytest.approx(-13.0)


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    source = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 400, 8, generator=source)
    same, _ = kernel_distance(a, b, torch.Generator().manual_seed(1), subsets=20, size=200)
    moved, _ = kernel_distance(a, b + 1, torch.Generator().manual_seed(1), subsets=20, size=200)
    assert abs(same) < 0.05 < 1 < moved


def test_sharpness_of_a_ramp() -> None:
    """Brightness rises by 0.03 a pixel to the right and 0.04 downwards: hypot = 0.05."""
    ramp = 0.03 * torch.arange(8)[None, :] + 0.04 * torch.arange(8)[:, None]
    assert sharpness(ramp.expand(2, 3, 8, 8)) == pytest.approx(0.05)
    assert sharpness(torch.full((1, 3, 8, 8), 0.7)) == 0.0


def test_a_spectrum_has_its_peak_at_the_pictures_frequency() -> None:
    """Five periods a side are the fifth value; the Hann window spreads them to the next two."""
    x = torch.arange(32) / 32
    waves = (0.5 + 0.5 * (2 * torch.pi * 5 * x).cos()).expand(2, 3, 32, 32)
    spectrum = log_power(waves)
    assert spectrum.shape == (16,)
    assert int(spectrum.argmax()) == 4
    assert spectrum[8:].max() < spectrum[4] - 60


def test_spectrum_of_noise_and_distance_of_its_half() -> None:
    """White noise of variance v has 10 log10(v) everywhere, and here v is 1 / 3, the mean of three
    channels; half of it is 20 log10(2) = 6.02 dB below."""
    noise = torch.randn(300, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    spectrum = log_power(noise)
    # The mean of logarithms is below the logarithm of the mean where a ring has few frequencies.
    assert spectrum[4:] == pytest.approx(torch.full((12,), -4.77), abs=0.4)
    assert spectrum_distance(spectrum, log_power(noise / 2)) == pytest.approx(6.02, abs=0.01)
    assert spectrum_distance(spectrum, spectrum) == 0


def test_variety_by_hand() -> None:
    """Of 0, 3 and 9 the distances are 3, 6 and 9; of one vector there is none."""
    features = torch.tensor([[0.0], [3.0], [50.0], [9.0]])
    assert variety(features, {"a": [0, 1, 3], "b": [2]}) == {"a": pytest.approx(6.0)}

"""The shapes world's metrics on true pictures, of which the answers are known."""

from __future__ import annotations

import pytest
import torch

from distillkit_shapes.metrics import INFO, ShapesMetricsConfig
from distillkit_shapes.pictures import render
from distillkit_shapes.scenes import codes_of


def test_true_pictures_have_the_metrics_of_a_perfect_student() -> None:
    """The student's pictures are the teacher's own: no distance, equal sharpness, captions right.

    A KID of equal sets is below 0: the unbiased estimate leaves the equal pairs out within a set,
    and compares them across.
    """
    metrics = ShapesMetricsConfig().build()
    prompts = metrics.prompts(100, seed=3)
    images = render(codes_of(prompts), torch.Generator().manual_seed(1))
    values = metrics.compute(images, prompts, images)
    assert values.keys() == INFO.keys()
    assert values["caption_accuracy"] >= 0.99
    assert values["extra_objects"] == 0
    assert values["frechet_teacher"] == pytest.approx(0, abs=1e-6)
    assert values["sharpness_ratio"] == 1
    assert values["kid_teacher"] < 0.01
    assert 0 < values["frechet_true"] < 2


def test_noise_makes_every_metric_worse() -> None:
    metrics = ShapesMetricsConfig().build()
    prompts = metrics.prompts(100, seed=3)
    images = render(codes_of(prompts), torch.Generator().manual_seed(1))
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(2))
    good = metrics.compute(images, prompts, images)
    bad = metrics.compute((images + 0.2 * noise).clamp(0, 1), prompts, images)
    assert bad["caption_accuracy"] < good["caption_accuracy"]
    assert bad["sharpness_ratio"] > 1.5
    for name in ("frechet_teacher", "frechet_true", "kid_teacher"):
        assert bad[name] > good[name] + 0.1

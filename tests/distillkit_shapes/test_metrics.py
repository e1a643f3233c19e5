"""The shapes world's metrics on true pictures, of which the answers are known."""

from __future__ import annotations

import math

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


def test_captions_by_kind_and_a_kind_that_none_has() -> None:
    """Two of one object and two pairs; of each, one picture shows another caption."""
    one, another = (f"a {thing} on a sand background" for thing in ("red circle", "blue star"))
    pair, turned = (
        f"a red circle {place} a blue star on a sand background" for place in ("left of", "above")
    )
    images = render(codes_of([one, one, pair, pair]), torch.Generator().manual_seed(0))
    prompts = [one, another, pair, turned]
    values = ShapesMetricsConfig().build().compute(images, prompts, images)
    assert values["captions_one"] == values["captions_pair"] == 0.5
    assert math.isnan(values["captions_two"])
    assert math.isnan(values["captions_three"])
    assert math.isnan(values["diversity_ratio"]), "no caption has two pictures that are right"


def test_diversity_is_that_of_pictures_of_one_caption() -> None:
    """One of two captions has a single picture over and over: the distances within it are zero, and
    half of them all is what is left, as far as the captions vary alike."""
    prompts = ["a red circle on a sand background"] * 20 + ["a blue star on a sand background"] * 20
    teacher = render(codes_of(prompts), torch.Generator().manual_seed(1))
    student = render(codes_of(prompts), torch.Generator().manual_seed(2))
    metrics = ShapesMetricsConfig().build()
    assert 0.8 < metrics.compute(student, prompts, teacher)["diversity_ratio"] < 1.2
    student[:20] = student[:1].clone()
    assert 0.3 < metrics.compute(student, prompts, teacher)["diversity_ratio"] < 0.7
    student[20:] = student[20:21].clone()
    assert metrics.compute(student, prompts, teacher)["diversity_ratio"] == 0


def test_teacher_pictures_that_changed_are_measured_again() -> None:
    metrics = ShapesMetricsConfig().build()
    prompts = metrics.prompts(8, seed=3)
    images = render(codes_of(prompts), torch.Generator().manual_seed(1))
    teacher = images.clone()
    assert metrics.compute(images, prompts, teacher)["spectrum_distance"] == 0
    teacher.mul_(0.5)
    assert metrics.compute(images, prompts, teacher)["spectrum_distance"] == pytest.approx(
        6.02, abs=0.1
    )

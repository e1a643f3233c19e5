"""DMD2's loss keeps the contract that every loss is held to."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pydantic import ValidationError

from distillkit import testing
from distillkit_diffusers.z_image.configs import ZImageTeacherConfig
from distillkit_dmd2.loss import DistributionMatchingConfig
from tests.distillkit.launch import told


def test_the_plugin() -> None:
    testing.check_plugin("distillkit_dmd2.plugin")


def test_the_loss() -> None:
    testing.check(DistributionMatchingConfig(guidance=2.0))


def test_an_empty_range_of_timesteps_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"`low` \(500\) should be below `high` \(500\)"):
        DistributionMatchingConfig(low=500, high=500)


@pytest.mark.parametrize(("guidance", "noted"), [("2.0", False), ("1.0", True)])
def test_scores_that_the_teachers_samples_do_not_follow_are_said(
    guidance: str, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    out = told(0, "check", "dmd2_shapes", "--set", f"losses.0.guidance={guidance}", capsys=capsys)
    said = " ".join(out.split())
    assert ("the teacher samples with guidance 2 and its score has none" in said) == noted


def test_guidance_is_compared_as_the_teachers_family_counts_it() -> None:
    """Z-Image's 0.5 is v + 0.5 (v - null): as much as 1.5 of null + 1.5 (v - null)."""
    recipe = SimpleNamespace(teacher=ZImageTeacherConfig(guidance=0.5))
    [note] = DistributionMatchingConfig(guidance=1.0).preflight(recipe)
    assert note.message.startswith("the teacher samples with guidance 1.5 and its score has none")
    recipe.teacher = ZImageTeacherConfig(guidance=0.0)
    assert list(DistributionMatchingConfig(guidance=1.0).preflight(recipe)) == []

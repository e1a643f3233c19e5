"""Plans of the paper's recipes at SDXL's true size, without a hub and without weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from distillkit.memory.plan import make_plan
from distillkit.recipe.load import load_recipe
from distillkit.testing.runs import recipe as example_recipe
from tests.distillkit.launch import told

RECIPES = Path(__file__).parents[3] / "recipes"
LORA_IN_24 = ("student.train=lora", "student.start=teacher", "teacher.offload=[text_encoders,vae]")


@pytest.mark.slow
@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("name", ["nitro_vibrant", "nitro_realism"])
def test_full_fine_tuning_of_sdxl_at_batch_5_fits_in_80_gb(name: str) -> None:
    """Published sizes: UNet 2,567,463,684; text encoders 123,060,480 and 694,659,840; VAE
    83,653,863. 480 heads by hand: 48 x (7,040 x 16 x 64 + 10 x (64 x 64 x 16 + 4 x 64 + 65)).
    """
    recipe = load_recipe(RECIPES / f"{name}.yaml").recipe
    plan = make_plan(recipe)
    parts = {part.name: part for part in plan.parts}
    unet, heads = 2_567_463_684, 48 * (7_040 * 16 * 64 + 10 * (64 * 64 * 16 + 4 * 64 + 65))
    assert recipe.run.batch == 5
    assert parts["student"].parameters == unet
    assert parts["student"].weights == parts["student"].gradients == 4 * unet
    [critic] = plan.dry.parts.critics
    assert sum(p.numel() for p in critic.pool.heads.parameters()) == heads
    # What `check` says without building a head.
    [config] = recipe.all_critics().values()
    channels = config.backbone.level_channels(recipe.teacher)
    assert channels == critic.backbone.channels
    assert config.pool.pool_size(channels) == (480, heads)
    texts, vae = 123_060_480 + 694_659_840, 83_653_863
    modules = plan.dry.parts.teacher.modules()
    assert sum(p.numel() for m in modules for p in m.parameters()) == unet + texts + vae
    assert plan.fits(80)
    assert not plan.fits(48)


@pytest.mark.slow
@pytest.mark.usefixtures("no_hub")
def test_a_lora_student_of_sdxl_fits_in_24_gb() -> None:
    plan = make_plan(load_recipe(RECIPES / "nitro_vibrant.yaml", LORA_IN_24).recipe)
    assert plan.recipe.run.batch == 5
    assert plan.fits(24)


@pytest.mark.parametrize(
    "name", ["dmd2_shapes", "ladd_shapes", "nitro_guided_shapes", "nitro_shapes"]
)
def test_every_other_recipe_has_a_plan(name: str) -> None:
    """A fake score is as large as the student, and has a gradient and moments of its own."""
    plan = make_plan(load_recipe(RECIPES / f"{name}.yaml").recipe)
    parts = {part.name: part for part in plan.parts}
    student, score = parts["student"], parts["losses' networks"]
    assert plan.fits(24)
    assert student.optimizer >= 2 * student.weights > 0
    expected = student.parameters if name != "ladd_shapes" else 0
    assert score.parameters == expected
    assert score.gradients == 4 * expected


def test_parts_without_an_outline_have_a_plan() -> None:
    """The examples build in full: 256 weights in the student, two moments and a count each."""
    plan = make_plan(example_recipe())
    student = next(part for part in plan.parts if part.name == "student")
    assert (student.parameters, student.weights, student.optimizer) == (256, 1024, 2056)


def test_the_command_shows_parts_peak_and_cards(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("plan", RECIPES / "nitro_shapes.yaml", "--gpu-memory", 24)
    output = told(0, *words, capsys=capsys)
    words = (
        "parameters, M",
        "peak of a run, estimated",
        "iteration with a one-step roll-out",
        "24 GB: fits as it is",
    )
    for word in words:
        assert word in output

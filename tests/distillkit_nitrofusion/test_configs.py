"""What recipes can say: round trips, bounds and messages, and an import without torch."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from distillkit.configs import ComponentConfig
from distillkit_nitrofusion import plugin
from distillkit_nitrofusion.losses.hinge import HingeConfig
from distillkit_nitrofusion.losses.regression import RegressionConfig
from distillkit_nitrofusion.losses.wasserstein import WassersteinConfig
from distillkit_nitrofusion.pool import DynamicPoolConfig, StaticPoolConfig
from distillkit_nitrofusion.refinement import BottomUpConfig, FixedConfig
from distillkit_nitrofusion.refresh import (
    AccuracyRefreshConfig,
    NeverRefreshConfig,
    OldestRefreshConfig,
    RandomRefreshConfig,
)

PARTS: list[type[ComponentConfig]] = [
    *plugin.distillkit_register_pools(),
    *plugin.distillkit_register_refreshes(),
    *plugin.distillkit_register_losses(),
    *plugin.distillkit_register_refinements(),
]
ENTRIES: list[dict[str, Any]] = [
    {"type": "dynamic", "views": ["global-uncond"], "crop": 0.25, "timesteps": [0, 999]},
    {"type": "dynamic", "levels": [9, 0], "draw": "all", "width": 32, "depth": 1},
    {"type": "dynamic", "draw": "per-picture", "draw_heads": "all"},
    {"type": "static", "zero_init": False},
    {"type": "random", "fraction": 0.02, "every": 20},
    {"type": "random", "updates_per_life": 25},
    {"type": "oldest", "fraction": 0.02, "every": 20},
    {"type": "accuracy", "replace": "highest", "min_updates": 5, "fraction": 0.02},
    {"type": "never"},
    {"type": "hinge", "weight": 0.5, "r1": {"weight": 10, "sigma": 0.1}},
    {"type": "non-saturating", "r1": {}, "r2": {"sigma": 0.1}},
    {"type": "hinge", "weight": 2, "ramp": 100},
    {"type": "least-squares"},
    {"type": "wasserstein", "clip": 0.1},
    {"type": "relativistic-paired"},
    {"type": "paper-literal"},
    {"type": "regression", "norm": "pseudo-huber", "c": 0.1},
    {"type": "bottom-up", "stages": {1: 600, 2: 200, 4: 200}, "replay": 0.25},
    {"type": "fixed", "steps": 2, "iterations": 10},
]
BY_NAME = {part.name(): part for part in PARTS}


def test_every_part_is_tried() -> None:
    assert len(BY_NAME) == len(PARTS)
    assert {entry["type"] for entry in ENTRIES} == set(BY_NAME)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["type"])
@pytest.mark.parametrize("mode", ["python", "json"])
def test_round_trip(entry: dict[str, Any], mode: str) -> None:
    """What was given is there, and the dump says the same again, also through JSON's text keys."""
    part = BY_NAME[entry["type"]]
    config = part.model_validate(entry)
    dump = config.model_dump(mode=mode)
    assert part.model_validate(dump) == config
    assert part.model_validate_json(config.model_dump_json()) == config
    assert config.model_fields_set == set(entry)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name())
def test_every_part_and_field_is_described(part: type[ComponentConfig]) -> None:
    assert (part.__doc__ or "").partition("\n")[0].endswith("."), "plugins list shows this line"
    assert all(f.description for name, f in part.model_fields.items() if name != "type")


def test_defaults_are_the_papers() -> None:
    pool = DynamicPoolConfig()
    assert pool.views == ["global-cond", "local-cond", "local-uncond"]
    assert pool.timesteps == [10, 250, 500, 750]
    assert len(pool.views) * len(pool.timesteps) * 10 * pool.heads_per_slot == 480
    assert (RandomRefreshConfig().fraction, RandomRefreshConfig().every) == (0.01, 1)


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        (
            DynamicPoolConfig,
            {"views": ["gobal-cond"]},
            "there is no view 'gobal-cond'; did you mean 'global-cond'? "
            "views are global-cond, global-uncond, local-cond, local-uncond",
        ),
        (
            StaticPoolConfig,
            {"views": ["x"]},
            "there is no view 'x'; views are global-cond, global-uncond, local-cond, local-uncond",
        ),
        (
            DynamicPoolConfig,
            {"views": ["local-cond", "global-cond", "local-cond"]},
            "each value may be given once; given again: local-cond",
        ),
        (DynamicPoolConfig, {"views": []}, "at least 1 item"),
        (
            DynamicPoolConfig,
            {"timesteps": [10, 500, 10]},
            "each value may be given once; given again: 10",
        ),
        (DynamicPoolConfig, {"timesteps": [1000]}, "less than or equal to 999"),
        (DynamicPoolConfig, {"levels": [-1]}, "greater than or equal to 0"),
        (DynamicPoolConfig, {"levels": []}, "at least 1 item"),
        (DynamicPoolConfig, {"crop": 1}, "less than 1"),
        (DynamicPoolConfig, {"draw": "some"}, "'one', 'all' or 'per-picture'"),
        (DynamicPoolConfig, {"draw_heads": "some"}, "'one' or 'all'"),
        (DynamicPoolConfig, {"width": 20}, "multiple of 8"),
        (DynamicPoolConfig, {"depth": 0}, "greater than or equal to 1"),
        (DynamicPoolConfig, {"heads_per_slot": 0}, "greater than or equal to 1"),
        (StaticPoolConfig, {"heads_per_slot": 4}, "Extra inputs are not permitted"),
        (RandomRefreshConfig, {"fraction": 1.5}, "less than or equal to 1"),
        (RandomRefreshConfig, {"updates_per_life": 0.5}, "greater than or equal to 1"),
        (
            RandomRefreshConfig,
            {"updates_per_life": 5, "fraction": 0.2},
            "updates_per_life: replaces `fraction`; give one of them",
        ),
        (AccuracyRefreshConfig, {"replace": "worst"}, "'lowest' or 'highest'"),
        (AccuracyRefreshConfig, {"min_updates": 0}, "greater than or equal to 1"),
        (HingeConfig, {"ramp": -1}, "greater than or equal to 0"),
        (OldestRefreshConfig, {"every": 0}, "greater than or equal to 1"),
        (NeverRefreshConfig, {"every": 2}, "Extra inputs are not permitted"),
        (
            BottomUpConfig,
            {"stages": {1: 5, 4: 5, 2: 5}},
            "stages go from short roll-outs to long ones: 1, 2, 4, not 1, 4, 2",
        ),
        (BottomUpConfig, {"stages": {5: 10}}, "less than or equal to 4"),
        (BottomUpConfig, {"stages": {1: 0}}, "greater than or equal to 1"),
        (BottomUpConfig, {"stages": {}}, "at least 1 item"),
        (BottomUpConfig, {}, "Field required"),
        (FixedConfig, {"steps": 0, "iterations": 1}, "greater than or equal to 1"),
        (HingeConfig, {"r1": {"sigma": 0}}, "greater than 0"),
        (HingeConfig, {"clip": 0.1}, "Extra inputs are not permitted"),
        (WassersteinConfig, {"clip": 0}, "greater than 0"),
        (RegressionConfig, {"norm": "l1"}, "'mse' or 'pseudo-huber'"),
    ],
)
def test_a_wrong_entry_gets_a_sentence(
    part: type[ComponentConfig], fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        part.model_validate(fields)
    assert message in "\n".join(error["msg"] for error in caught.value.errors())


def test_the_plugin_imports_no_torch() -> None:
    """Names and fields are known, and a wrong entry is refused, before torch is loaded."""
    code = (
        "import sys, distillkit_nitrofusion.plugin as p\n"
        "p.distillkit_register_pools()[0](views=['local-cond'])\n"
        "print('torch' in sys.modules, 'diffusers' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False False"

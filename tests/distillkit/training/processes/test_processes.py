"""What accelerate is asked for, and what is said where it can't be had or processes disagree."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from distillkit.errors import UserError
from distillkit.recipe.schema import RunConfig
from distillkit.training.processes import check_agreement, digest_of, make_accelerator
from tests.distillkit.world import world_recipe


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path) -> None:
    recipe = world_recipe(run=RunConfig(trackers=["no-such-tracker"]))
    with pytest.raises(UserError, match=r"run.trackers: 'no-such-tracker' is not installed"):
        make_accelerator(recipe, tmp_path)


@pytest.mark.usefixtures("fresh_accelerate")
def test_recipes_of_several_precisions_train_in_one_process(tmp_path: Path) -> None:
    """As in a notebook: accelerate itself keeps the first one's."""
    for precision in ("no", "bf16", "bf16", "no"):
        recipe = world_recipe(run=RunConfig(precision=precision))
        assert make_accelerator(recipe, tmp_path).mixed_precision == precision


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_precision_that_accelerate_refuses_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older_card(**_: object) -> None:
        raise ValueError("bf16 mixed precision requires a supported device.")

    monkeypatch.setattr("accelerate.Accelerator", older_card)
    with pytest.raises(UserError, match=r"run.precision: bf16 can't be used here: bf16 mixed"):
        make_accelerator(world_recipe(run=RunConfig(precision="bf16")), tmp_path)


@pytest.mark.usefixtures("fresh_accelerate")
def test_what_else_accelerate_refuses_is_not_the_precisions_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many")
    with pytest.raises(UserError, match=r"^accelerate can't start here: invalid literal .*'many'"):
        make_accelerator(world_recipe(run=RunConfig()), tmp_path)


@pytest.mark.usefixtures("fresh_accelerate")
def test_processes_that_do_not_find_each_other_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would take itself for the only one, and all would write to one folder."""
    Accelerator(cpu=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"started 2 processes .*accelerate runs 1: .*torchrun"):
        make_accelerator(world_recipe(), tmp_path)


def test_digests_are_equal_for_equal_values_alone() -> None:
    values = (3, [1, 2], torch.tensor([0.5, 1.5]))
    same = (3, [1, 2], torch.tensor([0.5, 1.5]).bfloat16())
    assert digest_of(*values) == digest_of(*same)
    others = [(3, [2, 1], values[2]), (3, [1, 2], torch.tensor([0.5, 1.25])), values[:2]]
    assert digest_of(*values) not in [digest_of(*other) for other in others]


def test_the_process_that_disagrees_is_named() -> None:
    def among(*digests: int) -> SimpleNamespace:
        gathered = torch.tensor(digests)
        return SimpleNamespace(num_processes=len(digests), device="cpu", gather=lambda _: gathered)

    check_agreement(among(5), "the panel", 5)
    check_agreement(among(5, 5, 5), "the panel", 5)
    with pytest.raises(UserError, match=r"Process 2 disagrees with process 0 on the panel\."):
        check_agreement(among(5, 5, 4), "the panel", 5)

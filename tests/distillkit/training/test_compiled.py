"""`run.compile` changes nothing but speed: losses, files, resume. Its backends need no compiler."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from distillkit.recipe.schema import RunConfig
from distillkit.recipe.sections import section_remarks
from distillkit.runs.folder import read_log
from distillkit.training.callbacks import Stopped
from distillkit.training.models.compiled import FOR_GPUS
from tests.distillkit.world import (
    PlainNetworkTeacherConfig,
    StopAfter,
    assert_same,
    everything,
    trainer,
    world_recipe,
)

TEACHER = PlainNetworkTeacherConfig()


@pytest.fixture(autouse=True)
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def test_a_compiled_run_has_the_same_losses_and_files_and_resumes_bit_for_bit(
    tmp_path: Path,
) -> None:
    from torch._dynamo.utils import counters

    plain = trainer(world_recipe(teacher=TEACHER), tmp_path / "plain")
    plain.train()
    counters.clear()
    run = RunConfig(batch=4, checkpoint_every=10, compile="eager")
    recipe = world_recipe(teacher=TEACHER, run=run)
    whole = trainer(recipe, tmp_path / "whole")
    whole.train()
    # The student, with gradients and without.
    assert counters["stats"]["unique_graphs"] >= 2
    for name in ("plain", "whole"):
        assert len(read_log(tmp_path / name / "log.jsonl")) == 20
    for one, other in zip(
        *(read_log(tmp_path / name / "log.jsonl") for name in ("plain", "whole")), strict=True
    ):
        assert other["student"] == pytest.approx(one["student"], rel=1e-4)
        assert other["critic"] == pytest.approx(one["critic"], rel=1e-4)
    assert everything(plain).keys() == everything(whole).keys()

    broken = trainer(recipe, tmp_path / "broken", StopAfter(9, signal.SIGTERM))
    with pytest.raises(Stopped):
        broken.train()
    resumed = trainer(recipe, tmp_path / "broken")
    resumed.train(resume=True)
    assert_same(everything(whole), everything(resumed))


@pytest.mark.parametrize("backend", FOR_GPUS)
def test_those_for_gpus_are_left_out_on_a_cpu_and_shards_are_refused(
    tmp_path: Path, backend: Any
) -> None:
    run = trainer(world_recipe(run=RunConfig(batch=4, compile=backend)), tmp_path)
    assert run.state.student.network.module._compiled_call_impl is None
    [(path, remark)] = section_remarks(
        world_recipe(run=RunConfig(compile=backend, parallel="fsdp2"))
    )
    assert path == ("run", "compile")
    assert remark.is_error

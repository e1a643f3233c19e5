"""Critics and student on pairs that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distillkit.recipe.schema import RunConfig
from distillkit.runs.folder import read_log
from distillkit.training.models.critic import Critic
from distillkit.training.models.held_out import HeldOutPairs, seed_distance
from distillkit.values import DrawnHead, JudgedView, Panel, View
from tests.distillkit.world import assert_same, everything, trainer, world_recipe, world_teacher


def test_the_distance_between_seeds_by_hand() -> None:
    """Two prompts of four seeds, one cell of two channels. First: 0, 0, 2, 2 in both channels: of
    six pairs four are 2 apart, so 8 / 6. Second: all alike, 0. Mean 2 / 3."""
    first = torch.tensor([0.0, 0.0, 2.0, 2.0])[:, None].expand(4, 2)
    x_0 = torch.cat([first, torch.ones(4, 2)]).view(8, 2, 1, 1)
    assert seed_distance(x_0) == pytest.approx(2 / 3)


class MeanPool:
    """Two noise levels of one view, whose heads say how bright a picture is."""

    def __init__(self) -> None:
        self.heads = nn.ModuleList([nn.Flatten(), nn.Flatten()])

    def draw(self, batch: int, generator: torch.Generator) -> Panel:
        n = int(torch.randint(2, (), generator=generator))
        t_B, view = torch.full((batch,), (10, 500)[n]), View("whole", 1.0, True)
        return Panel((JudgedView(view, t_B, (DrawnHead(0, n),)),))


class PlainBackbone:
    channels = (4,)

    def features(self, x_t_BCHW: Tensor, t_B: Tensor, cond: Any, window: Any) -> list[Tensor]:
        return [x_t_BCHW]

    def modules(self) -> list[nn.Module]:
        return []


def test_accuracy_by_view_and_t_by_hand() -> None:
    """The teacher's picture is the brighter one of six of eight pairs; real and fake are noised
    alike, so that a head that says brightness is right of 75 % at every noise level. Both levels
    are met, though a panel has one of them."""
    teacher: Any = world_teacher()
    brighter = torch.tensor([1.0, 1.0, 1.0, -1.0] * 2)
    rows: Iterator[Tensor] = iter(brighter.split(4))
    teacher.sample = lambda x_T, cond, generators: x_T + next(rows).view(-1, 1, 1, 1)
    critic = Critic(PlainBackbone(), MeanPool(), None, teacher.schedule, seed=0)  # type: ignore[arg-type]
    student = SimpleNamespace(rollout=lambda x_T, cond, steps, renoise: x_T)
    state: Any = SimpleNamespace(
        student=student,
        critics=[critic],
        micro_batch=lambda last: nullcontext(),
        heads_on_device=lambda panels: nullcontext(),
    )
    pairs = HeldOutPairs(teacher, ["a", "b"], batch=4)
    found = pairs.measure(3, state)
    assert found["held_out"] == {"whole t10": 0.75, "whole t500": 0.75}
    assert found["seeds"]["student"] == pytest.approx(seed_distance(pairs.x_T_BCHW))
    assert found == pairs.measure(4, state), "the teacher's samples are made once"


def test_a_run_measures_with_its_previews_and_trains_as_without(tmp_path: Path) -> None:
    """3 views at 2 noise levels, after iterations 4, 8, 12, ... of which none trains otherwise."""

    def run(held_out: int) -> Any:
        settings = RunConfig(batch=4, checkpoint_every=10, preview_every=4, held_out=held_out)
        made = trainer(world_recipe(run=settings), tmp_path / str(held_out))
        made.preview = None
        made.train()
        return made

    measured, plain = run(2), run(0)
    assert_same(everything(measured), everything(plain))
    log = read_log(measured.folder.log)
    told = [row["iteration"] for row in log if "held_out" in row]
    assert told == [3, 7, 11, 15, 19]
    views = ("global-cond", "local-cond", "local-uncond")
    for i in told:
        assert {*log[i]["held_out"]} == {f"{view} t{t}" for view in views for t in (10, 500)}
        assert all(0 <= value <= 1 for value in log[i]["held_out"].values())
        assert {*log[i]["seeds"]} == {"student", "teacher"}
    assert log[3]["silent"] == 2.0
    assert not any("held_out" in row for row in read_log(plain.folder.log))

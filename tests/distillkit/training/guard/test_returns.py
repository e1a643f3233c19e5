"""What parts return in a run that breaks their contract: one sentence with part, call and rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from distillkit.configs import RefreshConfig
from distillkit.examples.backbone import ExampleBackboneConfig
from distillkit.examples.loss import ExampleLossConfig
from distillkit.examples.pool import ExamplePoolConfig
from distillkit.examples.student import ExampleStudentConfig
from distillkit.examples.teacher import ExampleTeacherConfig
from distillkit.training.guard import PartError
from distillkit.values import DrawnHead, Panel
from tests.distillkit.training.guard.spoilt import Change, spoilt, told
from tests.distillkit.world import THEIRS, brought_by_theirs, trainer, world_recipe


def with_views(**fields: Any) -> Change:
    """A panel whose views have other fields."""
    return lambda panel: Panel(tuple(replace(judged, **fields) for judged in panel.views))


def with_heads(*heads: DrawnHead) -> Change:
    return with_views(heads=heads)


def with_view(**fields: Any) -> Change:
    def change(panel: Panel) -> Panel:
        return Panel(tuple(replace(j, view=replace(j.view, **fields)) for j in panel.views))

    return change


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda panel: None, "returned None, not a Panel"),
        (lambda panel: Panel(()), "returned a panel without heads, so that no critic trains"),
        (with_heads(), "returned a panel without heads, so that no critic trains"),
        (
            with_heads(DrawnHead(0, 4)),
            "returned DrawnHead(level=0, head=4); the pool has heads 0 to 3",
        ),
        (
            with_heads(DrawnHead(0, -1)),
            "returned DrawnHead(level=0, head=-1); the pool has heads 0 to 3",
        ),
        (
            with_heads(DrawnHead(2, 0)),
            "returned DrawnHead(level=2, head=0); the backbone has levels 0 to 1",
        ),
        (
            with_views(t_B=torch.zeros(1)),
            "returned t_B a tensor (1,), not one timestep for each of 4 pictures",
        ),
        (with_views(t_B=5), "returned t_B 5, not one timestep for each of 4 pictures"),
        (
            with_views(t_B=torch.tensor([0, 5, 1000, 9])),
            "returned timesteps outside 0 to 999: [0, 5, 1000, 9]",
        ),
        (with_view(crop=0.0), "returned view 'whole' with crop 0.0, not in (0, 1]"),
        (
            with_views(rows=(0, 3, 1), t_B=torch.zeros(3)),
            "returned rows (0, 3, 1), not ascending pictures from 0 to 3",
        ),
        (
            with_views(rows=(0, 4), t_B=torch.zeros(2)),
            "returned rows (0, 4), not ascending pictures from 0 to 3",
        ),
        (
            with_views(rows=(), t_B=torch.zeros(0)),
            "returned rows (), not ascending pictures from 0 to 3",
        ),
        (
            with_views(rows=torch.tensor([0, 1]), t_B=torch.zeros(2)),
            "returned rows a tensor (2,), not a tuple of whole numbers or None",
        ),
        (
            with_views(rows=(1, 2), t_B=torch.zeros(4)),
            "returned t_B a tensor (4,), not one timestep for each of 2 pictures",
        ),
    ],
)
def test_a_panel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, flaw: str
) -> None:
    part = spoilt(ExamplePoolConfig, "draw", change)
    expected = f"pool 'example' {THEIRS} breaks its contract: draw() {flaw}"
    assert told(monkeypatch, tmp_path, part) == expected


class Shaped(nn.Module):
    """A head whose logits go through a function."""

    def __init__(self, head: nn.Module, change: Change) -> None:
        super().__init__()
        self.head, self.change = head, change

    def forward(self, map_BChw: Tensor) -> Any:
        return self.change(self.head(map_BChw))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda logits_BK: logits_BK[:, :, None], "a tensor (4, 64, 1), not (4, K) patch logits"),
        (lambda logits_BK: logits_BK.mean(1), "a tensor (4,), not (4, K) patch logits"),
        (lambda logits_BK: logits_BK[:1], "a tensor (1, 64), not (4, K) patch logits"),
        (lambda logits_BK: None, "None, not (4, K) patch logits"),
        (
            lambda logits_BK: logits_BK[:, :0],
            "no logits: a head gives at least one for each",
        ),
        (lambda logits_BK: logits_BK.long(), "values of int64, not of float32 or 16 bits"),
        (lambda logits_BK: logits_BK * 1j, "values of complex64, not of float32 or 16 bits"),
        (lambda logits_BK: logits_BK * torch.nan, "values that are not finite"),
    ],
)
def test_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, what: str) -> None:
    class Heads(ExamplePoolConfig):
        def build(self, channels: tuple[int, ...], seed: int) -> Any:
            pool = super().build(channels, seed)
            pool.heads = nn.ModuleList(Shaped(head, change) for head in pool.heads)
            return pool

    assert told(monkeypatch, tmp_path, Heads()) == (
        f"pool 'example' {THEIRS} breaks its contract: heads returned {what}"
    )


def test_a_head_on_a_level_that_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own sentence about channels, with the pool's name before it."""

    class Narrow(ExamplePoolConfig):
        def build(self, channels: tuple[int, ...], seed: int) -> Any:
            return super().build((3, 3), seed)

    sentence = told(monkeypatch, tmp_path, Narrow())
    assert sentence.startswith(f"pool 'example' {THEIRS} failed in heads: RuntimeError: ")
    assert "channels" in sentence


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda maps: maps[:1], "returned 1 maps, and `channels` has 2 levels"),
        (
            lambda maps: [maps[0][:, :5], maps[1]],
            "returned a tensor (8, 5, 4, 4) for level 0, not (8, 8, h, w)",
        ),
        (
            lambda maps: [maps[0], maps[1].flatten(2)],
            "returned a tensor (8, 8, 4) for level 1, not (8, 8, h, w)",
        ),
        (lambda maps: [maps[0], None], "returned None for level 1, not (8, 8, h, w)"),
        (
            lambda maps: [maps[0].double(), maps[1]],
            "returned values of float64, not of float32 or 16 bits for level 0",
        ),
        (
            lambda maps: [maps[0], maps[1] * torch.nan],
            "returned values that are not finite for level 1",
        ),
    ],
)
def test_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, flaw: str) -> None:
    """Two local views of four pictures go through the backbone together: eight maps a level."""
    part = spoilt(ExampleBackboneConfig, "features", change)
    pool = world_recipe().pool.model_copy(update={"views": ["local-cond", "local-uncond"]})
    brought_by_theirs(monkeypatch, part)
    run = trainer(world_recipe(backbone=part, pool=pool), tmp_path)
    with pytest.raises(PartError) as caught:
        run.step(0)
    expected = f"backbone 'example' {THEIRS} breaks its contract: features() {flaw}"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda x: x[:, :3], "returned a tensor (4, 3, 8, 8), not latents (4, 4, 8, 8)"),
        (lambda x: x[:1], "returned a tensor (1, 4, 8, 8), not latents (4, 4, 8, 8)"),
        (lambda x: x * torch.nan, "returned latents that are not finite"),
        (lambda x: x.long(), "returned latents of int64, not of float32 or 16 bits"),
        (lambda x: None, "returned None, not latents (4, 4, 8, 8)"),
    ],
)
def test_latents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, flaw: str
) -> None:
    part = spoilt(ExampleTeacherConfig, "sample", change)
    expected = f"teacher 'example' {THEIRS} breaks its contract: sample() {flaw}"
    assert told(monkeypatch, tmp_path, part) == expected


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        (lambda term: term * 1j, "a scalar of complex64, not of float32 or 16 bits"),
        (lambda term: term * torch.nan, "a scalar that is not finite"),
    ],
)
def test_a_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change, flaw: str) -> None:
    part = spoilt(ExampleLossConfig, "student", change)
    expected = f"loss 'example' {THEIRS} breaks its contract: student() returned {flaw}"
    assert told(monkeypatch, tmp_path, part) == expected


def test_a_students_network_of_another_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Small(ExampleStudentConfig):
        def build(self, teacher: Any) -> Any:
            network = super().build(teacher)

            class Half(type(network)):  # type: ignore[misc]
                def __call__(self, *args: Any) -> Tensor:
                    output: Tensor = super().__call__(*args)
                    return output[:, :, :4]

            network.__class__ = Half
            return network

    sentence = told(monkeypatch, tmp_path, Small())
    assert sentence.startswith(f"student 'example' {THEIRS} failed in a call of the network: ")


class Picks(RefreshConfig):
    """Picks what it is told to."""

    type: Literal["picks"] = "picks"
    what: Any

    def build(self) -> Any:
        class Policy:
            def pick(this, *args: Any) -> Any:  # noqa: N805
                return self.what

        return Policy()


@pytest.mark.parametrize(
    ("what", "flaw"),
    [
        ([0.0, 1.0], "returned [0.0, 1.0], not whole numbers of Python"),
        (torch.tensor([2]), "returned [tensor(2)], not whole numbers of Python"),
        ([True], "returned [True], not whole numbers of Python"),
        ([2, 5, 2], "returned [2, 5, 2], not distinct heads from 0 to 23"),
        ([0, 24], "returned [0, 24], not distinct heads from 0 to 23"),
        ([-1], "returned [-1], not distinct heads from 0 to 23"),
    ],
)
def test_picks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: Any, flaw: str) -> None:
    expected = f"refresh 'picks' {THEIRS} breaks its contract: pick() {flaw}"
    assert told(monkeypatch, tmp_path, Picks(what=what)) == expected


def test_picks_that_are_no_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentence = told(monkeypatch, tmp_path, Picks(what=None))
    assert sentence.startswith(f"refresh 'picks' {THEIRS} failed in pick(): TypeError: ")


def test_picks_are_checked_in_every_iteration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy may go wrong late; it costs nothing to look at a few numbers."""
    part = Picks(what=[1])
    brought_by_theirs(monkeypatch, part)
    run = trainer(world_recipe(refresh=part), tmp_path)
    run.step(0)
    run.state.critics[0].refresh.pick = lambda *_: [99]  # type: ignore[method-assign, union-attr]
    with pytest.raises(PartError, match="not distinct heads from 0 to 23"):
        run.step(1)

"""What heads that always say 0 would cost is asked of the losses, and changes nothing in them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from distillkit_nitrofusion.losses.hinge import HingeConfig
from tests.distillkit.world import (
    MeanGuess,
    MeanGuessConfig,
    assert_same,
    everything,
    made_up_loss,
    trainer,
    world_recipe,
)

HINGE: Any = HingeConfig().build(None, None)  # type: ignore[arg-type]


class Running(MeanGuess):
    """Hinge beside a running mean of its logits, which it keeps where checkpoints find it."""

    def __init__(self) -> None:
        super().__init__()
        self.bias.register_buffer("mean", torch.zeros(()))
        self.seen: list[Tensor] = []

    def critic(self, batch: Any) -> Tensor:
        logits = [each.real_BK for each in batch.critic_logits()]
        self.seen.append(torch.stack([each.detach().mean() for each in logits]).mean())
        return HINGE.critic(batch) + 0.1 * self.bias(self.bias.mean.view(1)).square().sum()

    def student(self, batch: Any) -> Tensor:
        return HINGE.student(batch)

    def after_critic_step(self, heads: Any) -> None:
        self.bias.mean.lerp_(torch.stack(self.seen).mean(), 0.3)
        self.seen.clear()


class RunningConfig(MeanGuessConfig):
    type: Any = "running"

    def build(self, teacher: Any, student: Any) -> Any:
        return Running()


def test_what_silent_heads_would_say_is_asked_of_no_loss_with_a_memory(tmp_path: Path) -> None:
    """The question is asked anew after a resume, so that it must leave nothing behind."""
    whole = trainer(world_recipe(losses=[RunningConfig()]), tmp_path)
    whole.train()
    after = everything(whole)
    shutil.rmtree(tmp_path / "checkpoints" / "00000020")
    resumed = trainer(world_recipe(losses=[RunningConfig()]), tmp_path)
    resumed.train(resume=True)
    assert_same(after, everything(resumed))


def test_what_silent_heads_would_say_stops_no_run(tmp_path: Path) -> None:
    """A loss that weighs by a gradient finds one there too; one that raises leaves it unknown."""

    def weighted(batch: Any) -> Tensor:
        terms = [each.real_BK for each in batch.critic_logits()]
        grads = torch.autograd.grad(sum(t.sum() for t in terms), terms, retain_graph=True)
        assert any(bool(t.detach().any()) for t in terms), "heads that say nothing at all"
        return HINGE.critic(batch) * torch.stack([g.mean() for g in grads]).mean()

    metrics = trainer(world_recipe(losses=[made_up_loss(weighted, HINGE.student)]), tmp_path).step(
        0
    )
    assert metrics.silent is None
    known = trainer(world_recipe(), tmp_path / "known").step(0)
    assert known.silent == pytest.approx(2.0)

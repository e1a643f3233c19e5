"""Everything of a run that must survive a kill, as named tensors; and putting it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillkit.runs.checkpoint import load_optimizer, optimizer_tensors
from distillkit.training.distributed import all_whole, fill
from distillkit.training.student import load_weights

if TYPE_CHECKING:
    from distillkit.training.divergence import Watch
    from distillkit.training.train_state import Players

State = dict[str, dict[str, Tensor]]


def collect(players: Players, watch: Watch) -> State:
    """Weights, running average, heads and their ages, moments, and the watch's memory.

    All processes must call it: it puts a student together that is cut into shards.
    RNG and data position are missing on purpose: both are functions of the iteration's number.
    """
    state: State = {
        "student": all_whole(dict(_student(players).named_parameters())),
        "student-optimizer": optimizer_tensors(players.student_optimizer),
        "progress": {"watch": watch.state, "born": players.born_N},
    }
    if players.average is not None:
        state["average"] = all_whole(players.average.weights)
        state["progress"]["averaged"] = players.average.updates
    if players.critics is not None:
        state["heads"] = players.critics.pool.heads.state_dict()
    for place, module in enumerate(players.others):
        state[f"other-{place}"] = module.state_dict()
    if players.critic_optimizer is not None:
        state["critic-optimizer"] = optimizer_tensors(players.critic_optimizer)
    return state


@torch.no_grad()
def restore(players: Players, watch: Watch, state: Mapping[str, dict[str, Tensor]]) -> None:
    """Put back what `collect` gave."""
    load_weights(_student(players), state["student"])
    load_optimizer(players.student_optimizer, state.get("student-optimizer", {}))
    watch.state.copy_(state["progress"]["watch"])
    players.born_N.copy_(state["progress"]["born"])
    if players.average is not None:
        for name, weight in players.average.weights.items():
            fill(weight, state["average"][name])
        players.average.updates.copy_(state["progress"]["averaged"])
    if players.critics is not None:
        players.critics.pool.heads.load_state_dict(state["heads"])
    for place, module in enumerate(players.others):
        module.load_state_dict(state[f"other-{place}"])
    if players.critic_optimizer is not None:
        load_optimizer(players.critic_optimizer, state.get("critic-optimizer", {}))


def published_weights(players: Players) -> dict[str, Tensor]:
    """The weights that count: the running average, or without one the student's own.

    All processes must call it.
    """
    if players.average is not None:
        return all_whole(players.average.weights)
    return all_whole({name: p.detach() for name, p in _student(players).named_parameters()})


def _student(players: Players) -> torch.nn.Module:
    return players.accelerator.unwrap_model(players.student.network.module)

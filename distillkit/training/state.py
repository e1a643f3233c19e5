"""The state of a run that a checkpoint holds, as named tensors; and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillkit.training.models.distributed import copy_into, gather_all, unwrap
from distillkit.training.models.optimizers import load_optimizer, optimizer_tensors
from distillkit.training.models.student import load_weights

if TYPE_CHECKING:
    from distillkit.training.divergence import DivergenceMonitor
    from distillkit.training.models.critic import Critic
    from distillkit.training.train_state import TrainState

StateTensors = dict[str, dict[str, Tensor]]
"""Tensors by part and name; a part is one file of a checkpoint."""


def state_tensors(state: TrainState, monitor: DivergenceMonitor) -> StateTensors:
    """Weights, EMA, heads with their ages, optimizer states, the monitor's running mean, and which
    players have learned yet.

    All processes must call it: it gathers a student that is sharded. There is no RNG state and no
    data position on purpose: both are functions of the iteration's number.
    """
    tensors: StateTensors = {
        "student": gather_all(dict(_student(state).named_parameters())),
        "student-optimizer": optimizer_tensors(state.student_optimizer),
        "progress": {"monitor": monitor.state, "learning": state.learning.state},
    }
    if state.ema is not None:
        tensors["ema"] = gather_all(state.ema.weights)
        tensors["progress"]["ema_updates"] = state.ema.updates
    for critic in state.critics:
        tensors[_part(critic)] = critic.pool.heads.state_dict()
        tensors["progress"] |= {f"{_part(critic)}.{n}": t for n, t in _counts(critic).items()}
    for index, module in enumerate(state.aux_networks):
        tensors[f"aux-{index}"] = module.state_dict()
    if state.critic_optimizer is not None:
        tensors["critic-optimizer"] = optimizer_tensors(state.critic_optimizer)
    return tensors


@torch.no_grad()
def load_state(
    state: TrainState, monitor: DivergenceMonitor, tensors: Mapping[str, dict[str, Tensor]]
) -> None:
    """Put back what `state_tensors` gave. Raises `PartError` where a part has another shape now."""
    with state.student_guard("loading its weights from the checkpoint"):
        load_weights(_student(state), tensors["student"])
    load_optimizer(state.student_optimizer, tensors.get("student-optimizer", {}))
    progress = tensors["progress"]
    monitor.state[: len(progress["monitor"])].copy_(progress["monitor"])
    state.learning.load(progress.get("learning"))
    if state.ema is not None:
        for name, weight in state.ema.weights.items():
            copy_into(weight, tensors["ema"][name])
        state.ema.updates.copy_(progress["ema_updates"])
    for critic in state.critics:
        with critic.guard("pool")("loading its heads from the checkpoint"):
            critic.pool.heads.load_state_dict(tensors[_part(critic)])
        for name, counts in _counts(critic).items():
            # A checkpoint of an earlier version does not say how often a critic has judged.
            last = critic.reset_iteration_N.max()
            counts.copy_(progress.get(f"{_part(critic)}.{name}", last))
    for index, (module, guard) in enumerate(zip(state.aux_networks, state.aux_guards, strict=True)):
        with guard("loading its network from the checkpoint"):
            module.load_state_dict(tensors[f"aux-{index}"])
    if state.critic_optimizer is not None:
        load_optimizer(state.critic_optimizer, tensors.get("critic-optimizer", {}))


def published_weights(state: TrainState) -> dict[str, Tensor]:
    """The weights that are published: the EMA, or without one the student's own.

    All processes must call it.
    """
    if state.ema is not None:
        return gather_all(state.ema.weights)
    return gather_all({name: p.detach() for name, p in _student(state).named_parameters()})


def _part(critic: Critic) -> str:
    """The checkpoint's file for a critic's heads."""
    return f"heads-{critic.name}" if critic.name else "heads"


def _counts(critic: Critic) -> dict[str, Tensor]:
    """What is counted of a critic and of every head, by name."""
    return {
        "reset_iteration": critic.reset_iteration_N,
        "updates": critic.updates_N,
        "wins": critic.wins_N,
        "seen": critic.seen_N,
        "judged": critic.judged,
    }


def _student(state: TrainState) -> torch.nn.Module:
    return unwrap(state.student.network.module)

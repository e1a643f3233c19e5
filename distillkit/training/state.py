"""The state of a run that a checkpoint holds, as named tensors; and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from distillkit.training.distributed import copy_into, gather_all, unwrap
from distillkit.training.optimizers import load_optimizer, optimizer_tensors
from distillkit.training.student import load_weights

if TYPE_CHECKING:
    from distillkit.training.divergence import DivergenceMonitor
    from distillkit.training.train_state import TrainState

StateTensors = dict[str, dict[str, Tensor]]
"""Tensors by part and name; a part is one file of a checkpoint."""


def state_tensors(state: TrainState, monitor: DivergenceMonitor) -> StateTensors:
    """Weights, EMA, heads and their ages, optimizer states, and the monitor's running mean.

    All processes must call it: it gathers a student that is sharded. There is no RNG state and no
    data position on purpose: both are functions of the iteration's number.
    """
    tensors: StateTensors = {
        "student": gather_all(dict(_student(state).named_parameters())),
        "student-optimizer": optimizer_tensors(state.student_optimizer),
        "progress": {"monitor": monitor.state, "reset_iteration": state.reset_iteration_N},
    }
    if state.ema is not None:
        tensors["ema"] = gather_all(state.ema.weights)
        tensors["progress"]["ema_updates"] = state.ema.updates
    if state.critics is not None:
        tensors["heads"] = state.critics.pool.heads.state_dict()
    for index, module in enumerate(state.aux_networks):
        tensors[f"aux-{index}"] = module.state_dict()
    if state.critic_optimizer is not None:
        tensors["critic-optimizer"] = optimizer_tensors(state.critic_optimizer)
    return tensors


@torch.no_grad()
def load_state(
    state: TrainState, monitor: DivergenceMonitor, tensors: Mapping[str, dict[str, Tensor]]
) -> None:
    """Put back what `state_tensors` gave."""
    load_weights(_student(state), tensors["student"])
    load_optimizer(state.student_optimizer, tensors.get("student-optimizer", {}))
    progress = tensors["progress"]
    monitor.state.copy_(progress["monitor"])
    state.reset_iteration_N.copy_(progress["reset_iteration"])
    if state.ema is not None:
        for name, weight in state.ema.weights.items():
            copy_into(weight, tensors["ema"][name])
        state.ema.updates.copy_(progress["ema_updates"])
    if state.critics is not None:
        state.critics.pool.heads.load_state_dict(tensors["heads"])
    for index, module in enumerate(state.aux_networks):
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


def _student(state: TrainState) -> torch.nn.Module:
    return unwrap(state.student.network.module)
